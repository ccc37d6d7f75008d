# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Sinks: where results go. Import from here; each name is loaded when it is used.

Besides the classes of sinks, this module has all that a sink of another package needs;
see ``docs/how-to/add-a-sink.md``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import (
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
    TooLarge,
)

if TYPE_CHECKING:
    from runqy_provider.sinks.amqp.sink import AmqpSink
    from runqy_provider.sinks.base import BoundSink, Sink
    from runqy_provider.sinks.combined import CombinedSink
    from runqy_provider.sinks.object_store.azure import AzureSink
    from runqy_provider.sinks.object_store.gcs import GcsSink
    from runqy_provider.sinks.object_store.local import FileSink
    from runqy_provider.sinks.object_store.s3 import S3Sink
    from runqy_provider.sinks.redis_storage import RedisStorageSink
    from runqy_provider.sinks.result import StoredResult, from_inline_value
    from runqy_provider.sinks.sql.sink import SqlSink
    from runqy_provider.sinks.webhook import WebhookSink
    from runqy_provider.waiters.source import Arrival

__all__ = [
    "AmqpSink",
    "Arrival",
    "AzureSink",
    "BoundSink",
    "CombinedSink",
    "DeliveryRequest",
    "FileSink",
    "GcsSink",
    "Misconfigured",
    "NoAccess",
    "NotThere",
    "RedisStorageSink",
    "S3Sink",
    "Sink",
    "SinkUnavailable",
    "SqlSink",
    "StoredResult",
    "TooLarge",
    "WebhookSink",
    "from_inline_value",
]

_MODULES = {
    "AmqpSink": ".amqp.sink",
    "Arrival": "..waiters.source",
    "AzureSink": ".object_store.azure",
    "BoundSink": ".base",
    "CombinedSink": ".combined",
    "StoredResult": ".result",
    "FileSink": ".object_store.local",
    "GcsSink": ".object_store.gcs",
    "RedisStorageSink": ".redis_storage",
    "S3Sink": ".object_store.s3",
    "Sink": ".base",
    "SqlSink": ".sql.sink",
    "WebhookSink": ".webhook",
    "from_inline_value": ".result",
}


def __getattr__(name: str) -> Any:
    """Import what a name stands for when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)
