# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``@task.runqy``: a function makes the payload, and the call is the job's result."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from runqy_provider.airflow_compat import KNOWN_CONTEXT_KEYS
from runqy_provider.decorators.call import call_function
from runqy_provider.operators.runqy import RunqyOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class RunqyDecoratedOperator(DecoratedOperator, RunqyOperator):
    """Call a function, and run a job with the payload that it returns.

    :param python_callable: The function. It returns the payload, a JSON object; or
        None: then its arguments are the payload.
    :param op_args: Its positional arguments. (templated)
    :param op_kwargs: Its keyword arguments. (templated)
    """

    # Not the payload: what the function returns is data.
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in RunqyOperator.template_fields if name != "payload"),
    )
    custom_operator_name = "@task.runqy"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Mapping[str, Any] | None],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Call the function, enqueue the job; wait for its result, or defer."""
        payload = call_function(self, context)
        self.payload = self._arguments() if payload is None else payload
        # Not DecoratedOperator's: in Airflow 3.0 that works only for functions.
        return RunqyOperator.execute(self, context)

    def _arguments(self) -> dict[str, Any]:
        """Return the function's arguments, without those that Airflow provides."""
        signature = inspect.signature(self.python_callable)
        bound = signature.bind_partial(*self.op_args, **self.op_kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(name))
        return {
            name: value
            for name, value in arguments.items()
            if name not in KNOWN_CONTEXT_KEYS
        }


def runqy_task(
    python_callable: Callable[..., Mapping[str, Any] | None] | None = None,
    *,
    multiple_outputs: bool = False,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function that returns a payload: ``@task.runqy``.

    The decorated function returns the payload of a job, and calling it gives the job's
    result. If a function returns None, its arguments are the payload.

    :param python_callable: The function.
    :param multiple_outputs: Store each field of the result as an XCom of its own. It is
        not taken from the function's annotation, which describes the payload.
    :param kwargs: Arguments of ``RunqyOperator``; ``runqy_queue`` is required, and
        ``payload`` comes from the function.

    Raises:
        TypeError: ``payload`` is given.
    """
    if "payload" in kwargs:
        raise TypeError("@task.runqy takes no payload: return it from the function.")
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=RunqyDecoratedOperator,
        **kwargs,
    )
