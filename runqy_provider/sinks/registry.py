# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From what users write to a sink."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks import redis_storage as job_address
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.combined import CombinedSink
from runqy_provider.sinks.object_store.local import FileSink
from runqy_provider.sinks.object_store.s3 import S3Sink
from runqy_provider.sinks.object_store.uri import unquoted
from runqy_provider.sinks.redis_storage import RedisStorageSink
from runqy_provider.sinks.sql import sink as sql
from runqy_provider.sinks.webhook import WebhookSink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from runqy_provider.sinks.object_store.sink import ObjectSink

#: What users write; see ``parse_sink``.
SinkArgument: TypeAlias = "str | Sink | Sequence[str | Sink]"

#: What users may write, for messages.
KNOWN = (
    "'webhook', 's3://bucket/prefix', 'gs://bucket/prefix', 'abfs://container/prefix', "
    "'file:///folder', 'sql://conn_id/table', 'amqp://conn_id/queue' or "
    "'redis_storage'"
)

#: Sinks whose library is an extra: module, extra, what is installed.
_EXTRAS = {
    "amqp": ("amqp.sink", "amqp", "aio-pika"),
    "gs": ("object_store.gcs", "gs", "obstore"),
    "abfs": ("object_store.azure", "abfs", "obstore"),
}


def parse_sink(sink: SinkArgument) -> Sink:
    """Return the sink that a text means; a sink is handed on.

    Args:
        sink: ``webhook``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
            ``abfs://container/prefix``, ``file:///folder``, ``sql://conn_id/table``,
            ``amqp://conn_id/queue``, ``redis_storage``, or a Sink. Several, as a list
            or with blanks between: the first holds the result, the others tell of it.

    Raises:
        Misconfigured: There is no such sink.
    """
    if isinstance(sink, Sink):
        return sink
    if isinstance(sink, str):
        sink = sink.split()
    sinks = [each if isinstance(each, Sink) else _parse(each) for each in sink]
    if not sinks:
        raise Misconfigured(f"An empty text is no sink. Write {KNOWN}.")
    if len(sinks) == 1:
        return sinks[0]
    return CombinedSink(sinks[0], tuple(sinks[1:]))


def sink_of(where: str) -> Sink:
    """Return a sink that can open what lies at an address, as in a Reference.

    Raises:
        Misconfigured: It is no such address.
    """
    parts = urlsplit(where)
    if where.startswith(job_address.SCHEME):
        return RedisStorageSink()
    if where.startswith(inbox_parcels.SCHEME):
        return WebhookSink()
    if parts.scheme == sql.SCHEME:
        return sql.sql_sink(where)
    if parts.scheme == FileSink.scheme and not parts.netloc:
        folder = where.removeprefix("file://").rpartition("/")[0]
        return FileSink(unquoted(folder) or "/")
    kind = _object_sink(parts.scheme)
    if kind is not None:
        return kind(parts.netloc)
    raise Misconfigured(f"{where!r} is no address of a result.")


def _parse(text: str) -> Sink:
    text = text.strip()
    if "#" in text:
        # It would end the path, and results would go elsewhere than was meant.
        raise Misconfigured(
            f"The sink {text!r} has a '#': where it belongs to a name, write %23."
        )
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise Misconfigured(f"{text!r} is no sink: {error}. Write {KNOWN}.") from error
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if text == "webhook":
        return WebhookSink()
    if text == "redis_storage":
        return RedisStorageSink()
    if parts.scheme == FileSink.scheme and not parts.netloc:
        folder = unquoted(parts.path)
        if folder.startswith("/"):
            folder = "/" + folder.strip("/")
        return FileSink.from_parts(folder, "", options)
    if parts.scheme == sql.SCHEME:
        return sql.sql_sink(text)
    if parts.scheme == "amqp":
        sink: Sink = _extra("amqp").amqp_sink(text)
        return sink
    kind = _object_sink(parts.scheme)
    if kind is not None:
        return kind.from_parts(parts.netloc, unquoted(parts.path), options)
    raise Misconfigured(
        f"{text!r} is no sink. Write {KNOWN}, on the task or in the connection's field "
        "'Default sink'."
    )


def _object_sink(scheme: str) -> type[ObjectSink] | None:
    kind: type[ObjectSink] | None = None
    if scheme == S3Sink.scheme:
        kind = S3Sink
    elif scheme == "gs":
        kind = _extra("gs").GcsSink
    elif scheme in ("abfs", "abfss"):
        kind = _extra("abfs").AzureSink
    return kind


def _extra(scheme: str) -> ModuleType:
    module, extra, library = _EXTRAS[scheme]
    try:
        return importlib.import_module(f"runqy_provider.sinks.{module}")
    except ImportError as error:
        raise Misconfigured(
            f"A sink {scheme}:// needs {library}: pip install "
            f"'airflow-provider-runqy[{extra}]' (on workers and triggerers)."
        ) from error
