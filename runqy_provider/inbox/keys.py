# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""All Redis keys of the inbox, and how long they live.

runqy:inbox:BOX:delivery:DELIVERY_ID   hash: status, body, digest, at
runqy:inbox:BOX:seen:DELIVERY_ID       text: its digest, while more may come for it
runqy:inbox:BOX:progress:DELIVERY_ID   text: the newest progress message
runqy:inbox:BOX:arrivals               channel: ids of what came

A box is what is looked into together. What a webhook brings lies in the box of its
runqy connection, ``CONN_ID``. A broker deals a queue's messages out among all that
consume it, whatever runqy connection they know, so what a queue brings lies in a box of
the queue: ``amqp/AMQP_CONN_ID/QUEUE``. The two cannot meet: a connection with a slash
in its id has no webhook.
"""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "runqy:inbox"

#: Seconds that a delivery stays while nobody has read it.
UNREAD_TTL = 7 * 24 * 3600

#: Seconds that it stays after its value was read. Long enough for a task whose worker
#: died between reading and saying so, and for late repeats to be known as repeats.
READ_TTL = 3600


_QUEUES = "amqp/"


def queue_box(amqp_conn_id: str, queue: str) -> str:
    """Return the box of a message queue.

    Args:
        amqp_conn_id: The Airflow connection of its broker.
        queue: Its name.
    """
    return f"{_QUEUES}{quote(amqp_conn_id, safe='')}/{quote(queue, safe='')}"


def is_queue_box(box: str) -> bool:
    """True for a box of a message queue, False for one of a runqy connection."""
    return box.startswith(_QUEUES)


def delivery(box: str, delivery_id: str) -> str:
    """Return the key of a final delivery."""
    return f"{PREFIX}:{box}:delivery:{delivery_id}"


def seen(box: str, delivery_id: str) -> str:
    """Return the key of what is left of a final delivery that was forgotten."""
    return f"{PREFIX}:{box}:seen:{delivery_id}"


def progress(box: str, delivery_id: str) -> str:
    """Return the key of the newest progress message."""
    return f"{PREFIX}:{box}:progress:{delivery_id}"


def arrivals(box: str) -> str:
    """Return the channel on which the ids of what came are published."""
    return f"{PREFIX}:{box}:arrivals"
