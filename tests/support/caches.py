"""Empty what this process keeps of connections, after a test has changed them."""

from __future__ import annotations

from typing import Any


def clear_settings() -> None:
    """Drop all cached runqy connections."""
    from runqy_provider import settings

    settings._settings_by_id.clear()


def clear_clients() -> None:
    """Drop all clients of object stores."""
    from runqy_provider.sinks.object_store.base import CLIENTS

    CLIENTS.clear()


def dispose_engines() -> None:
    """Close all database engines, so that their databases can be stopped."""
    from runqy_provider.sinks.sql.engine import ENGINES

    for engine in ENGINES.values():
        engine.dispose()
    ENGINES.clear()


def clear_registered() -> None:
    """Forget the sinks of other packages."""
    from runqy_provider.sinks import registry

    registry._of_others.cache_clear()
    registry._read.cache_clear()


def s3_client(aws_conn_id: str) -> Any:
    """Return the provider's boto3 client for an AWS connection."""
    from runqy_provider.sinks.object_store.s3 import shared_s3

    return shared_s3(aws_conn_id).boto3
