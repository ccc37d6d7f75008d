# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results that stand as one value in somebody's storage: a field, or a column.

Task code after runqy's guide stores the bare result there. Our helper does so too for
a plain JSON value; where there is more to say (a failure, bytes, metadata) it stores a
delivery, which carries the id that nobody else knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runqy_delivery import Delivery, JobError
from runqy_delivery.wire import FAILED, STATUSES
from runqy_provider.sinks.parcel import BYTES_TYPE, JSON_TYPE, Parcel

if TYPE_CHECKING:
    from runqy_provider.sinks.base import Follow


def parcel_of_value(
    value: Any,
    where: str,
    delivered_at: float,
    *,
    delivery_id: str,
    follow: Follow,
    failed: bool = False,
    is_parsed: bool = False,
) -> Parcel:
    """Return what a stored value says.

    Args:
        value: JSON as text or already read, a text that is no JSON, or bytes.
        where: Where it stands.
        delivered_at: Since when, in seconds since 1970.
        delivery_id: Our id of the delivery.
        follow: Opens a result of which the value says that it lies elsewhere.
        failed: True where the storage says that the job failed.
        is_parsed: True where a text is a value, not JSON that is still to be read.

    Raises:
        BadDelivery: It is a delivery that cannot be read.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if not failed:
            return Parcel.of_bytes(data, where, delivered_at, BYTES_TYPE)
        value = data.decode("utf-8", "replace")
    read = value if is_parsed else _read(value)
    delivery = _delivery(read, delivery_id)
    if delivery is not None:
        if delivery.status != FAILED and delivery.result_url is not None:
            return follow(delivery, delivery.result_url)
        return Parcel.of_delivery(delivery, where, delivered_at)
    if failed:
        words = read if isinstance(read, str) else json.dumps(read, default=str)
        if read is None or not words.strip():
            words = "The task code reported a failure and gave no reason."
        failure = Delivery(delivery_id, status=FAILED, error=JobError(words))
        return Parcel.of_failure(failure, where, delivered_at)
    # As it stands, where it is JSON text already: a large one is not written again.
    is_text = isinstance(value, str) and read is not value
    text = value if is_text else json.dumps(read, separators=(",", ":"))
    return Parcel.of_bytes(text.encode(), where, delivered_at, JSON_TYPE)


def _read(value: Any) -> Any:
    """Read JSON; a text that is none stands for itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _delivery(read: Any, delivery_id: str) -> Delivery | None:
    """Return the delivery that a value is, if it is one."""
    if not isinstance(read, Mapping) or read.get("task_id") != delivery_id:
        return None
    if read.get("status") not in STATUSES:
        return None
    return Delivery.from_fields(read)
