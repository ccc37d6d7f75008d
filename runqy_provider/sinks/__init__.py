# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Sinks: where results go. Import the classes from here; each is loaded when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runqy_provider.sinks.amqp.sink import AmqpSink
    from runqy_provider.sinks.base import BoundSink, Sink
    from runqy_provider.sinks.combined import CombinedSink
    from runqy_provider.sinks.object_store.azure import AzureSink
    from runqy_provider.sinks.object_store.gcs import GcsSink
    from runqy_provider.sinks.object_store.local import FileSink
    from runqy_provider.sinks.object_store.s3 import S3Sink
    from runqy_provider.sinks.redis_storage import RedisStorageSink
    from runqy_provider.sinks.sql.sink import SqlSink
    from runqy_provider.sinks.webhook import WebhookSink

__all__ = [
    "AmqpSink",
    "AzureSink",
    "BoundSink",
    "CombinedSink",
    "FileSink",
    "GcsSink",
    "RedisStorageSink",
    "S3Sink",
    "Sink",
    "SqlSink",
    "WebhookSink",
]

_MODULES = {
    "AmqpSink": "amqp.sink",
    "AzureSink": "object_store.azure",
    "BoundSink": "base",
    "CombinedSink": "combined",
    "FileSink": "object_store.local",
    "GcsSink": "object_store.gcs",
    "RedisStorageSink": "redis_storage",
    "S3Sink": "object_store.s3",
    "Sink": "base",
    "SqlSink": "sql.sink",
    "WebhookSink": "webhook",
}


def __getattr__(name: str) -> Any:
    """Import a sink class when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)
