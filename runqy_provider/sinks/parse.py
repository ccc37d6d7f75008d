# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""From what users write to a sink."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.s3 import s3_sink
from runqy_provider.sinks.webhook import WebhookSink


def parse_sink(sink: str | Sink) -> Sink:
    """Return the sink that a text means; a sink is handed on.

    Args:
        sink: ``webhook``, ``s3://bucket/prefix``, or a Sink.

    Raises:
        Misconfigured: There is no such sink.
    """
    if isinstance(sink, Sink):
        return sink
    parts = urlsplit(sink.strip())
    if sink.strip() == "webhook":
        return WebhookSink()
    if parts.scheme == "s3":
        return s3_sink(parts.netloc, parts.path, dict(parse_qsl(parts.query)))
    raise Misconfigured(
        f"{sink!r} is no sink. Write 'webhook' or 's3://bucket/prefix', on the task or "
        "in the connection's field 'Default sink'."
    )
