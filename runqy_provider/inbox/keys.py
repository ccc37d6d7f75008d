# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""All Redis keys of the inbox, and how long they live.

runqy:inbox:NAMESPACE:delivery:DELIVERY_ID   hash: status, body, digest, at
runqy:inbox:NAMESPACE:seen:DELIVERY_ID       text: its digest, while its URL is valid
runqy:inbox:NAMESPACE:progress:DELIVERY_ID   text: the newest progress message
runqy:inbox:NAMESPACE:refused:DELIVERY_ID    text: why a delivery was refused
runqy:inbox:NAMESPACE:attempt:NAME           text: a task's record for its next attempt
runqy:inbox:NAMESPACE:manifest:BATCH_ID      text: the manifest of a batch
runqy:inbox:NAMESPACE:arrivals               channel: ids of deliveries as they arrive
runqy:inbox:NAMESPACE:channel:CHANNEL        stream: events of the deliveries to it
runqy:inbox:NAMESPACE:accepted               list: records of the last ones
runqy:inbox:NAMESPACE:rejected               list: records of those that were rejected
runqy:inbox:NAMESPACE:bad-url                list: records of those with a bad URL

In a Redis Cluster, NAMESPACE has braces: ``runqy:inbox:{NAMESPACE}:accepted``. So all
keys of a namespace are on one node. Functions here take it as it is in the key:
``RedisConnection.in_keys`` returns that.

A namespace is polled as a whole. The namespace of a webhook is its runqy connection,
``CONN_ID``. A broker distributes the messages of a queue among all its consumers,
whichever runqy connection they use, so the namespace of a message is its queue:
``amqp/AMQP_CONN_ID/QUEUE``. The two never collide, as a connection with a slash in its
id cannot have a webhook.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from runqy_provider.sanitize import one_line

if TYPE_CHECKING:
    from runqy_delivery import Delivery

PREFIX = "runqy:inbox"

#: Seconds that it is kept after its value was read. Long enough for a task whose worker
#: died after it read the value, and to recognise a late repetition.
READ_TTL = 3600

#: Prefix of the ids of deliveries that ``checks/callback.py`` makes.
CHECK_PREFIX = "check-"

_QUEUES = "amqp/"

#: Scheme of the URIs of deliveries in the inbox.
SCHEME = "inbox://"

#: The most deliveries that a channel keeps until they are read.
MOST_KEPT = 10_000

#: The longest text of a progress message that is kept, in characters: each poll reads
#: it.
LONGEST_TEXT = 500


def delivery_uri(namespace: str, delivery_id: str) -> str:
    """Return the URI of a delivery in the inbox."""
    return f"{SCHEME}{namespace}/{delivery_id}"


def queue_namespace(amqp_conn_id: str, queue: str) -> str:
    """Return the namespace of a message queue.

    Args:
        amqp_conn_id: The Airflow connection of its broker.
        queue: Its name.
    """
    return f"{_QUEUES}{quote(amqp_conn_id, safe='')}/{quote(queue, safe='')}"


def is_queue_namespace(namespace: str) -> bool:
    """Return whether a namespace is that of a queue, not of a runqy connection."""
    return namespace.startswith(_QUEUES)


def delivery(namespace: str, delivery_id: str) -> str:
    """Return the key of a final delivery."""
    return f"{PREFIX}:{namespace}:delivery:{delivery_id}"


def seen(namespace: str, delivery_id: str) -> str:
    """Return the key of the digest that is kept after a delivery was forgotten."""
    return f"{PREFIX}:{namespace}:seen:{delivery_id}"


def progress(namespace: str, delivery_id: str) -> str:
    """Return the key of the newest progress message."""
    return f"{PREFIX}:{namespace}:progress:{delivery_id}"


def refused(namespace: str, delivery_id: str) -> str:
    """Return the key of the reason why its newest delivery was refused."""
    return f"{PREFIX}:{namespace}:refused:{delivery_id}"


def attempt(namespace: str, name: str) -> str:
    """Return the key of the record that a task leaves for its next attempt."""
    return f"{PREFIX}:{namespace}:attempt:{name}"


def manifest(namespace: str, batch_id: str) -> str:
    """Return the key of the manifest of a batch."""
    return f"{PREFIX}:{namespace}:manifest:{batch_id}"


def arrivals(namespace: str) -> str:
    """Return the channel on which the ids of arrivals are published."""
    return f"{PREFIX}:{namespace}:arrivals"


def channel(namespace: str, name: str) -> str:
    """Return the key of the stream of a channel."""
    return f"{PREFIX}:{namespace}:channel:{name}"


def accepted(namespace: str) -> str:
    """Return the key of the records of the last final deliveries."""
    return f"{PREFIX}:{namespace}:accepted"


def rejected(namespace: str) -> str:
    """Return the key of the records of the last deliveries that were rejected."""
    return f"{PREFIX}:{namespace}:rejected"


def bad_url(namespace: str) -> str:
    """Return the key of the records of the last requests without a valid URL.

    Anybody can send those. They have a list of their own, so that they remove no
    records of real deliveries.
    """
    return f"{PREFIX}:{namespace}:bad-url"


@dataclass(frozen=True)
class Progress:
    """The newest progress message.

    Attributes:
        at: When it arrived, in seconds since 1970.
        fraction: How much is done, from 0 to 1; None if the task code did not say.
        text: What is being done.
    """

    at: float
    fraction: float | None = None
    text: str | None = None

    def __str__(self) -> str:
        share = "" if self.fraction is None else f"{self.fraction:.0%}"
        return " ".join(part for part in (share, self.text) if part) or "alive"

    @classmethod
    def of(cls, delivery: Delivery) -> Progress:
        """Return the contents of a progress message, cut to the limits."""
        fraction = delivery.fraction
        return cls(
            at=round(time.time(), 3),
            fraction=None if fraction is None else float(min(max(fraction, 0), 1)),
            text=one_line(delivery.text or "", LONGEST_TEXT) or None,
        )

    @classmethod
    def from_json(cls, text: bytes) -> Progress:
        """Read a stored progress message, of this version or a newer one."""
        kept = json.loads(text)
        return cls(kept["at"], kept.get("fraction"), kept.get("text"))

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()
