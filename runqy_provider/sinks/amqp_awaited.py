# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Which messages of a queue are ours, as far as their ids tell."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

#: Ids that RunqyOperator chooses: UUIDs of version 5. Most others are of version 4.
_OURS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)

#: Seconds for which an id is known since it was last asked for; much longer than the
#: time between two looks.
KNOWN_FOR = 3600.0


class Awaited:
    """Ids of deliveries that somebody waits for, or may wait for."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}

    def add(self, ids: Collection[str]) -> None:
        """Note ids that are waited for now; those not noted for long are forgotten."""
        now = time.monotonic()
        known = {id_: at for id_, at in self._asked.items() if now - at < KNOWN_FOR}
        known.update((id_, now) for id_ in ids if not _OURS.fullmatch(id_))
        self._asked = known

    def __contains__(self, id_: str) -> bool:
        return bool(_OURS.fullmatch(id_)) or id_ in self._asked
