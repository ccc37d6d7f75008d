# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a JSON value comes out of Airflow's XCom exactly as it went in.

Airflow's own code decides: its serializer, the message to the supervisor, and its
deserializer. So does its database: PostgreSQL's type jsonb stores some floats as
integers. A result that one of them refuses or changes is not put into XCom; a reference
to it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow.sdk.execution_time.comms import SetXCom, _RequestFrame

from runqy_provider.airflow_compat import deserialize, serialize
from runqy_provider.sanitize import is_storable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The task that the value would belong to; any task does.
_TASK: dict[str, Any] = {
    "key": "return_value",
    "dag_id": "d",
    "run_id": "r",
    "task_id": "t",
    "map_index": -1,
}

#: From this value on, Python writes a float with an exponent, as in 1e+16. jsonb writes
#: it as an integer, which is another type, and may be too large for Airflow to read.
_LARGE = 1e16


def is_kept_by_xcom(value: Any) -> bool:
    """Return whether XCom gives a JSON value back unchanged, and as plain JSON.

    The value is not deserialized for that: no class that it names is imported.
    """
    try:
        if not is_storable(value) or serialize(value) != value:
            return False
        message = SetXCom(value=value, **_TASK)
        _RequestFrame(id=0, body=message.model_dump()).as_bytes()
        return all(map(_is_plain, _objects_and_floats(value)))
    except Exception:  # noqa: BLE001 - Airflow would raise the same later
        return False


def _objects_and_floats(value: Any) -> Iterator[dict[str, Any] | float]:
    """Yield all JSON objects and all floats within a value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, float):
            yield one


def _is_plain(one: dict[str, Any] | float) -> bool:
    if isinstance(one, float):
        # jsonb has no negative zero.
        return abs(one) < _LARGE and (one != 0 or math.copysign(1, one) > 0)
    # Without nested values, and so that Airflow describes a class instead of importing
    # it (``full``); in lists it would still import it.
    bare = {k: None if isinstance(v, (dict, list)) else v for k, v in one.items()}
    return bool(deserialize(bare, full=False) == bare)
