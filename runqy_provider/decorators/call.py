# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Call the function of a decorated task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runqy_provider.airflow_compat import determine_kwargs

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import DecoratedOperator


def call_function(task: DecoratedOperator, context: Context) -> Any:
    """Call the function of a task with its arguments and its parts of the context.

    Args:
        task: The task.
        context: The task instance's.
    """
    function = task.python_callable
    given = {**context, **task.op_kwargs}
    return function(*task.op_args, **determine_kwargs(function, task.op_args, given))
