# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Why a delivery is rejected, as it is recorded: for users of Airflow, not senders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runqy_provider.receiver.responses import HttpRejection

#: The URL is not valid for its connection.
BAD_TOKEN = "bad token or expired"  # noqa: S105 - a text

BAD_REQUEST, BAD_SIGNATURE = 400, 403

#: Those of which the sender is told more than the reason.
DETAILED = (BAD_REQUEST, 408, 413)

#: The reasons where the URL is valid, by HTTP status. A conflict is recorded where it
#: is noticed, and without Redis nothing can be recorded.
REASONS = {
    BAD_REQUEST: "not a delivery",
    BAD_SIGNATURE: "signature",
    408: "too slow",
    413: "too large",
    429: "too many at once",
}


def reason_of(rejection: HttpRejection) -> tuple[str, str]:
    """Return the reason for a rejection whose URL is valid, and more about this one.

    Both are empty where nothing is to be recorded.
    """
    reason = REASONS.get(rejection.status, "")
    if rejection.status in DETAILED:
        return reason, rejection.message
    if rejection.status == BAD_SIGNATURE:
        return reason, str(rejection.__cause__)
    return reason, ""
