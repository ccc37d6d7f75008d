# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""All Redis keys of the inbox, and how long they live.

runqy:inbox:CONN_ID:delivery:DELIVERY_ID   hash: status, body, digest, at
runqy:inbox:CONN_ID:progress:DELIVERY_ID   text: the newest progress message
runqy:inbox:CONN_ID:arrivals               channel: ids of what came
"""

from __future__ import annotations

PREFIX = "runqy:inbox"

#: Seconds that a delivery stays while nobody has read it.
UNREAD_TTL = 7 * 24 * 3600

#: Seconds that it stays after its value was read. Long enough for a task whose worker
#: died between reading and saying so, and for late repeats to be known as repeats.
READ_TTL = 3600


def delivery(conn_id: str, delivery_id: str) -> str:
    """Return the key of a final delivery."""
    return f"{PREFIX}:{conn_id}:delivery:{delivery_id}"


def progress(conn_id: str, delivery_id: str) -> str:
    """Return the key of the newest progress message."""
    return f"{PREFIX}:{conn_id}:progress:{delivery_id}"


def arrivals(conn_id: str) -> str:
    """Return the channel on which the ids of what came are published."""
    return f"{PREFIX}:{conn_id}:arrivals"
