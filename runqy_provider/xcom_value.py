# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a JSON value comes out of Airflow's XCom exactly as it went in.

Airflow's own code decides: its serializer, the message to the supervisor, and its
deserializer. A result that one of them refuses or changes is not put into XCom; a
reference to it is.
"""

from __future__ import annotations

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


def is_kept_by_xcom(value: Any) -> bool:
    """Return whether XCom gives a JSON value back unchanged, and as plain JSON.

    The value is not deserialized for that: no class that it names is imported.
    """
    try:
        if not is_storable(value) or serialize(value) != value:
            return False
        message = SetXCom(value=value, **_TASK)
        _RequestFrame(id=0, body=message.model_dump()).as_bytes()
        return all(_is_plain(each) for each in _objects(value))
    except Exception:  # noqa: BLE001 - whatever Airflow raises now it would raise then
        return False


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all JSON objects within a value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _is_plain(one: dict[str, Any]) -> bool:
    # Without nested values, and so that Airflow describes a class instead of importing
    # it (``full``); in lists it would import it all the same.
    bare = {k: None if isinstance(v, (dict, list)) else v for k, v in one.items()}
    return bool(deserialize(bare, full=False) == bare)
