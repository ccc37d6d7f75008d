# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From what users write to a sink."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks import inbox_parcels, job_address, sql
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.redis_storage import RedisStorageSink
from runqy_provider.sinks.s3 import S3Sink, s3_sink
from runqy_provider.sinks.s3_arrivals import split_address
from runqy_provider.sinks.webhook import WebhookSink

#: What users may write, for messages.
KNOWN = "'webhook', 's3://bucket/prefix', 'sql://conn_id/table' or 'redis_storage'"


def parse_sink(sink: str | Sink) -> Sink:
    """Return the sink that a text means; a sink is handed on.

    Args:
        sink: ``webhook``, ``s3://bucket/prefix``, ``sql://conn_id/table``,
            ``amqp://conn_id/queue``, ``redis_storage``, or a Sink.

    Raises:
        Misconfigured: There is no such sink.
    """
    if isinstance(sink, Sink):
        return sink
    text = sink.strip()
    parts = urlsplit(text)
    if text == "webhook":
        return WebhookSink()
    if text == "redis_storage":
        return RedisStorageSink()
    if parts.scheme == "s3":
        return s3_sink(parts.netloc, parts.path, dict(parse_qsl(parts.query)))
    if parts.scheme == sql.SCHEME:
        return sql.sql_sink(text)
    if parts.scheme == "amqp":
        return _amqp_sink(text)
    raise Misconfigured(
        f"{sink!r} is no sink. Write {KNOWN}, on the task or in the connection's field "
        "'Default sink'."
    )


def sink_of(where: str) -> Sink:
    """Return a sink that can open what lies at an address, as in a Reference.

    Raises:
        Misconfigured: It is no such address.
    """
    scheme = urlsplit(where).scheme
    if where.startswith(job_address.SCHEME):
        return RedisStorageSink()
    if where.startswith(inbox_parcels.SCHEME):
        return WebhookSink()
    if scheme == "s3":
        return S3Sink(split_address(where)[0])
    if scheme == sql.SCHEME:
        return sql.sql_sink(where)
    raise Misconfigured(f"{where!r} is no address of a result.")


def _amqp_sink(text: str) -> Sink:
    try:
        from runqy_provider.sinks.amqp import amqp_sink  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Misconfigured(
            f"The sink {text!r} needs aio-pika: pip install "
            "'airflow-provider-runqy[amqp]' (on workers and triggerers)."
        ) from error
    return amqp_sink(text)
