# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a local run shows: the delivery, and what the task code told runqy."""

from __future__ import annotations

import base64
import json
import textwrap
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import FAILED, Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How much of a value is shown, in characters.
MAX_VALUE = 1000

NO_DELIVERY = (
    "No delivery was made. Put @delivers below @task, or POST the result to the "
    "payload's webhook_url. Without a delivery, Airflow can read the result only if "
    "the queue has redis_storage: true."
)


def progress_line(delivery: Delivery) -> str:
    """Return one line that describes a progress message."""
    fraction, text = delivery.fraction, delivery.text
    percent = "" if fraction is None else f"{fraction:4.0%}"
    return " ".join(filter(None, ("progress", percent, text)))


def describe_delivery(delivery: Delivery) -> str:
    """Return a text that describes a final delivery."""
    parts = [f"delivery: {delivery.status}"]
    if delivery.status == FAILED:
        parts += _failure_fields(delivery)
    else:
        parts += _result_fields(delivery)
    if delivery.log:
        parts.append(_field("log", delivery.log))
    return "\n".join(parts)


def describe_response(response: Mapping[str, Any]) -> str:
    """Return a text that describes what runqy would get from the task code."""
    parts = ["told to runqy:"]
    if response.get("error"):
        parts.append(_field("error", str(response["error"])))
        parts.append(
            _field("retry requested", "yes" if response.get("retry") else "no")
        )
    else:
        parts.append(_field("result", _shortened(_as_json(response.get("result")))))
    return "\n".join(parts)


def _failure_fields(delivery: Delivery) -> list[str]:
    error = delivery.error
    if error is None:
        return []
    names = ("type", "message", "traceback")
    fields = {name: getattr(error, name) for name in names}
    return [_field(name, value) for name, value in fields.items() if value]


def _result_fields(delivery: Delivery) -> list[str]:
    fields: list[str] = []
    if delivery.result_url is not None:
        fields.append(_field("result URL", delivery.result_url))
        size, value = delivery.size, None
    elif delivery.encoding == "base64":
        data = base64.b64decode(str(delivery.result))
        size, value = len(data), _shortened(repr(data[:MAX_VALUE]))
    else:
        text = _as_json(delivery.result)
        size, value = len(text.encode()), _shortened(text)
    is_json = delivery.result_url is None and delivery.encoding is None
    content_type = delivery.content_type or ("application/json" if is_json else None)
    if content_type is not None:
        fields.append(_field("content type", content_type))
    if size is not None:
        fields.append(_field("size", f"{size:,} bytes"))
    if delivery.metadata is not None:
        fields.append(_field("metadata", _shortened(_as_json(delivery.metadata))))
    if value is not None:
        fields.append(_field("value", value))
    return fields


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _field(name: str, value: str) -> str:
    """Return one field; the lines of a longer value stand below its name."""
    value = value.strip("\n")
    if "\n" not in value:
        return f"  {name}: {value}"
    return f"  {name}:\n{textwrap.indent(value, '    ')}"
