# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Why deliveries cannot arrive: the callback URL is checked while jobs run.

Task code retries a delivery for minutes, and only the log of the runqy worker says that
it fails. So the same request is made from here: once for all waits of a connection.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runqy_provider.airflow_compat import in_thread

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext

#: Seconds between two checks.
INTERVAL = 60.0

#: The same where a job has just ended without a delivery.
SHORT_INTERVAL = 15.0


class CallbackMonitor:
    """Checks the callback URL of one connection, and remembers the answer for a while.

    Args:
        context: The runqy connection and the options.
    """

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._checked_at = -INTERVAL
        self._problem = ""

    async def problem(self, *, has_ended: bool = False) -> str:
        """Return why deliveries cannot arrive; an empty text where they can.

        Args:
            has_ended: Whether a job has just ended without a delivery.
        """
        from runqy_provider.checks import FAILED  # noqa: PLC0415 - rarely needed
        from runqy_provider.checks.callback import check_callback  # noqa: PLC0415 - same

        interval = SHORT_INTERVAL if has_ended else INTERVAL
        if time.monotonic() - self._checked_at >= interval:
            found = await in_thread(check_callback, self._context)
            self._problem = found.message if found.status == FAILED else ""
            self._checked_at = time.monotonic()
        return self._problem
