# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Find the class of a sink's URI by its scheme.

Classes are imported when a URI of theirs is first read, so that a DAG with webhooks
imports no library of an object store, a database or a message broker.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What users write; see ``sink_from_uri``.
SinkArgument: TypeAlias = "str | Sink | Sequence[str | Sink]"

#: Entry points of this group register sinks of other packages, by scheme.
GROUP = "runqy_provider.sinks"

#: How sinks are written, for messages.
EXAMPLES = (
    "'webhook', 's3://bucket/prefix', 'gs://bucket/prefix', 'abfs://container/prefix', "
    "'file:///folder', 'sql://conn_id/table', 'amqp://conn_id/queue' or "
    "'redis_storage'"
)


@dataclass(frozen=True)
class Registration:
    """A sink class of this package.

    Attributes:
        module: Its module, below ``runqy_provider.sinks``.
        name: Its name in that module.
        library: The library that it needs and the provider does not require.
        extra: The extra of the provider that brings this library.
    """

    module: str
    name: str
    library: str = ""
    extra: str = ""

    def load(self) -> type[Sink]:
        """Import the class.

        Raises:
            Misconfigured: Its library is not installed.
        """
        try:
            module = importlib.import_module(f"runqy_provider.sinks.{self.module}")
        except ImportError as error:
            if not self.library or (error.name or "").startswith("runqy"):
                raise
            raise Misconfigured(
                f"{self.name} needs {self.library}: pip install "
                f"'airflow-provider-runqy[{self.extra}]' (on workers and triggerers)."
            ) from error
        found: type[Sink] = getattr(module, self.name)
        return found


SINKS = {
    "webhook": Registration("webhook", "WebhookSink"),
    "inbox": Registration("webhook", "WebhookSink"),
    "s3": Registration("object_store.s3", "S3Sink"),
    "gs": Registration("object_store.gcs", "GcsSink", "obstore", "gs"),
    "abfs": Registration("object_store.azure", "AzureSink", "obstore", "abfs"),
    "abfss": Registration("object_store.azure", "AzureSink", "obstore", "abfs"),
    "file": Registration("object_store.local", "FileSink"),
    "sql": Registration("sql.sink", "SqlSink"),
    "amqp": Registration("amqp.sink", "AmqpSink", "aio-pika", "amqp"),
    "redis_storage": Registration("redis_storage", "RedisStorageSink"),
}


def sink_from_uri(sink: SinkArgument) -> Sink:
    """Return the sink that a URI describes; a sink is returned as it is.

    Args:
        sink: ``webhook``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
            ``abfs://container/prefix``, ``file:///folder``, ``sql://conn_id/table``,
            ``amqp://conn_id/queue``, ``redis_storage``, or a Sink. Several, as a list
            or separated by blanks: the first holds the result, the others notify.

    Raises:
        Misconfigured: It is not a valid sink.
    """
    if isinstance(sink, Sink):
        return _registered(sink)
    if isinstance(sink, str):
        sink = sink.split()
    sinks = [
        _registered(one) if isinstance(one, Sink) else _read(one.strip())
        for one in sink
    ]
    if not sinks:
        raise Misconfigured(f"An empty text is not a valid sink. Write {EXAMPLES}.")
    if len(sinks) == 1:
        return sinks[0]
    from runqy_provider.sinks.combined import CombinedSink  # noqa: PLC0415 - rarely used

    return CombinedSink(sinks[0], tuple(sinks[1:]))


def sink_for_result(uri: str) -> Sink:
    """Return a sink that can open the result at a URI, as in a Reference.

    Raises:
        Misconfigured: It is not the URI of a result.
    """
    found = _class_of(uri.partition("://")[0])
    if found is None or "://" not in uri:
        raise Misconfigured(f"{uri!r} is not the URI of a result.")
    return found.for_result(uri)


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Sink:
    """Read a URI, once per process: sinks never change."""
    if "#" in text:
        # It would end the path, and results would go to another place than was meant.
        raise Misconfigured(
            f"The sink {text!r} has a '#': if it belongs to a name, write %23."
        )
    try:
        urlsplit(text)
    except ValueError as error:
        raise Misconfigured(
            f"{text!r} is not a valid sink: {error}. Write {EXAMPLES}."
        ) from error
    found = _class_of(text.partition("://")[0])
    if found is None:
        raise Misconfigured(
            f"{text!r} is not a valid sink. Write {EXAMPLES}, on the task or in the "
            "connection's field 'Default sink'."
        )
    return found.from_uri(text)


def _class_of(scheme: str) -> type[Sink] | None:
    known = SINKS.get(scheme)
    return _of_others().get(scheme) if known is None else known.load()


@functools.cache
def _of_others() -> dict[str, type[Sink]]:
    """Return the sink classes that other packages register, by scheme."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def _registered(sink: Sink) -> Sink:
    """Return a sink that a trigger, in another process, can read from its URI.

    Raises:
        Misconfigured: Its scheme belongs to no class, or to another class.
    """
    is_single = len(sink.uri.split()) == 1
    scheme = sink.uri.partition("://")[0]
    if is_single and _class_of(scheme) is not type(sink):
        raise Misconfigured(
            f"The sink {sink.uri!r} could not be read back as a "
            f"{type(sink).__name__}, which a trigger does in another process. Register "
            f"the scheme {scheme!r} by an entry point of the group {GROUP!r}."
        )
    return sink
