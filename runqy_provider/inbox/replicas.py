# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a replica has what was written, where it may become the primary by itself."""

from __future__ import annotations

import math
import time

from redis.exceptions import RedisError

#: Seconds for which a round trip waits until a replica has what it wrote. Usually this
#: takes a millisecond. Without a replica, it costs this time.
REPLICA_WAIT = 0.1

#: Seconds for which nothing counts as stored after the replica was lost. A primary that
#: has just been replaced does not know it yet, and what it stores is lost. After that
#: time, the replica counts as gone, and the inbox goes on without one.
LOST_FOR = 30.0


class ReplicaCheck:
    """Decides whether what a round trip wrote counts as stored."""

    def __init__(self) -> None:
        self._confirmed_at = -math.inf

    def error(self, replicas: object) -> RedisError | None:
        """Return why it does not count as stored; None where it does.

        Args:
            replicas: What WAIT has answered: how many replicas have it. An error where
                Redis does not allow WAIT.
        """
        now = time.monotonic()
        if isinstance(replicas, int) and replicas > 0:
            self._confirmed_at = now
        elif now - self._confirmed_at < LOST_FOR:
            return RedisError(
                "no replica has confirmed what was written: perhaps another Redis is "
                "becoming the primary. Without a replica, deliveries are accepted "
                f"after {LOST_FOR:.0f} s"
            )
        return None
