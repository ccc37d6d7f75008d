# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the ``repr`` of a result that cannot be written as JSON, so that it is not lost.

It is text for people. A pickle would keep the objects themselves, but reading a pickle
runs the code that it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runqy_delivery.json_encoder import shown
from runqy_delivery.result import Content, Result
from runqy_delivery.sinks import object_store

if TYPE_CHECKING:
    from runqy_delivery.errors import ResultNotEncodable
    from runqy_delivery.wire import DeliveryRequest

#: What is appended to the key of a result for the key of its repr.
REPR_SUFFIX = ".repr.txt"

#: The longest repr in an object store, and in a message, in characters.
MAX_OBJECT, MAX_IN_MESSAGE = 64 * 1024 * 1024, 4000


def keep_repr(request: DeliveryRequest, error: ResultNotEncodable) -> str:
    """Store the repr of a result beside the result's key, and say where it is.

    If the sink is not an object store, or the worker uploads by a signed URL, what
    is returned contains the start of the repr instead.

    Args:
        request: The delivery request.
        error: The error that the result caused.
    """
    returned = error.returned
    value = returned.value if isinstance(returned, Result) else returned
    text = shown(value, MAX_OBJECT)
    data = text.encode("utf-8", "replace")
    content = Content("text/plain; charset=utf-8", len(data), data=data)
    uri = object_store.put_beside(request, REPR_SUFFIX, content)
    if uri is not None:
        return f"The repr() of the whole result is in {uri}."
    if len(text) > MAX_IN_MESSAGE:
        text = f"{text[:MAX_IN_MESSAGE]}..."
    return f"The repr() of the whole result: {text}"
