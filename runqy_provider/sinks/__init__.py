# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Sinks: where results go. Import from here; each name is loaded when it is used.

Besides the classes of sinks, this module has all that a sink of another package needs;
see ``docs/how-to/add-a-sink.md``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runqy_delivery import DeliveryRequest
    from runqy_provider.errors import (
        Misconfigured,
        NoAccess,
        NotThere,
        SinkUnavailable,
        TooLarge,
    )
    from runqy_provider.sinks.amqp.sink import AmqpSink
    from runqy_provider.sinks.base import BoundSink, Sink
    from runqy_provider.sinks.combined import CombinedSink
    from runqy_provider.sinks.object_store.azure import AzureSink
    from runqy_provider.sinks.object_store.gcs import GcsSink
    from runqy_provider.sinks.object_store.local import FileSink
    from runqy_provider.sinks.object_store.s3 import S3Sink
    from runqy_provider.sinks.redis_storage import RedisStorageSink
    from runqy_provider.sinks.result import FetchedResult, from_inline_value
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
    "FetchedResult",
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
    "TooLarge",
    "WebhookSink",
    "from_inline_value",
]

_OURS = "runqy_provider"

_MODULES = {
    "AmqpSink": f"{_OURS}.sinks.amqp.sink",
    "Arrival": f"{_OURS}.waiters.source",
    "AzureSink": f"{_OURS}.sinks.object_store.azure",
    "BoundSink": f"{_OURS}.sinks.base",
    "CombinedSink": f"{_OURS}.sinks.combined",
    "DeliveryRequest": "runqy_delivery",
    "FetchedResult": f"{_OURS}.sinks.result",
    "FileSink": f"{_OURS}.sinks.object_store.local",
    "GcsSink": f"{_OURS}.sinks.object_store.gcs",
    "Misconfigured": f"{_OURS}.errors",
    "NoAccess": f"{_OURS}.errors",
    "NotThere": f"{_OURS}.errors",
    "RedisStorageSink": f"{_OURS}.sinks.redis_storage",
    "S3Sink": f"{_OURS}.sinks.object_store.s3",
    "Sink": f"{_OURS}.sinks.base",
    "SinkUnavailable": f"{_OURS}.errors",
    "SqlSink": f"{_OURS}.sinks.sql.sink",
    "TooLarge": f"{_OURS}.errors",
    "WebhookSink": f"{_OURS}.sinks.webhook",
    "from_inline_value": f"{_OURS}.sinks.result",
}


def __getattr__(name: str) -> Any:
    """Import what a name stands for when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
