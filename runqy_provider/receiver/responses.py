# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the receiver says."""

from __future__ import annotations

from fastapi.responses import JSONResponse

#: Seconds after which to come back when Redis is away, or too much comes at once.
RETRY_AFTER = 5


#: Refusals of what a body says: it was read whole.
AFTER_BODY = (400, 409)


class Refusal(Exception):
    """A request is not taken.

    Args:
        status: The HTTP status.
        message: Words for the sender; never a secret, never which check failed.
        retry_after: Seconds after which trying again may help.
    """

    def __init__(
        self, status: int, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def to_response(self) -> JSONResponse:
        """Return the answer; its connection is closed if a body may be unread."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status not in AFTER_BODY:
            headers["Connection"] = "close"
        return JSONResponse({"error": self.message}, self.status, headers)


def bad_address() -> Refusal:
    """Return the one answer for every kind of bad address, so that it tells nothing."""
    return Refusal(
        403,
        "This address takes no delivery: it is unknown, altered or expired, or the "
        "body's signature is missing or wrong. The receiver's log says which.",
    )
