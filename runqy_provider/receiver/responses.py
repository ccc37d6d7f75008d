# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of the receiver to senders, and the reasons that are recorded for users."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from runqy_provider.inbox.writer import Outcome

#: Seconds after which to retry if Redis is unavailable, or too much comes at once.
RETRY_AFTER = 5

#: Refusals because of what a body says: it was read completely.
AFTER_BODY = (400, 409)

#: The URL is not valid for its connection.
BAD_TOKEN = "bad token or expired"  # noqa: S105 - a text

BAD_REQUEST, BAD_SIGNATURE = 400, 403

#: Reasons for which the sender is told more than the reason itself.
DETAILED = (BAD_REQUEST, 408, 413)

#: The reasons if the URL is valid, by HTTP status. A conflict is recorded where it is
#: noticed, and without Redis nothing can be recorded.
REASONS = {
    BAD_REQUEST: "not a delivery",
    BAD_SIGNATURE: "signature",
    408: "too slow",
    413: "too large",
    429: "too many at once",
}


class HttpRejection(Exception):
    """A request is not accepted.

    Args:
        status: The HTTP status.
        message: Text for the sender; never a secret, never which check failed.
        retry_after: Seconds after which a retry may succeed.
    """

    def __init__(
        self, status: int, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def to_response(self) -> JSONResponse:
        """Return the response; it closes the connection if the body may be unread."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status not in AFTER_BODY:
            headers["Connection"] = "close"
        return JSONResponse({"error": self.message}, self.status, headers)


def accepted(outcome: Outcome) -> Response:
    """Return the response to a delivery that was accepted.

    A progress message has another status, as it is not stored for good.
    """
    status = 202 if outcome is Outcome.NOTED else 200
    return JSONResponse({"outcome": outcome.value}, status)


def bad_address() -> HttpRejection:
    """Return the one rejection for all kinds of bad URLs: it reveals nothing."""
    return HttpRejection(
        403,
        "This URL does not accept a delivery: it is unknown, changed or expired, or "
        "the body's signature is missing or wrong. The receiver's log says which.",
    )


def reason_of(rejection: HttpRejection) -> tuple[str, str]:
    """Return the reason for a rejection whose URL is valid, and more about this one.

    Both are empty if nothing is to be recorded.
    """
    reason = REASONS.get(rejection.status, "")
    if rejection.status in DETAILED:
        return reason, rejection.message
    if rejection.status == BAD_SIGNATURE:
        return reason, str(rejection.__cause__)
    return reason, ""
