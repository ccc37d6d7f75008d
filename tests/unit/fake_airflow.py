"""What Airflow gives a task, in memory."""

from __future__ import annotations

import json
from typing import Any

from runqy_provider.errors import SinkUnavailable


class TaskStateStore(dict[str, Any]):
    """Airflow's store for the state of a task, which it keeps over retries.

    Attributes:
        is_available: Whether something can be stored.
    """

    is_available = True

    def set(self, key: str, value: Any) -> None:
        if not self.is_available:
            raise SinkUnavailable("The store is away.")
        self[key] = json.loads(json.dumps(value))
