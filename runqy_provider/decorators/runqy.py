# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``@task.runqy`` and ``@task.runqy_batch``: a function makes the payloads of jobs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from runqy_provider.airflow_compat import KNOWN_CONTEXT_KEYS, determine_kwargs
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.operators.runqy_batch import RunqyBatchOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

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
        payload = _call_function(self, context)
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


class RunqyBatchDecoratedOperator(DecoratedOperator, RunqyBatchOperator):
    """Call a function, and run a job with each payload that it returns.

    :param python_callable: The function. It returns, or yields, payloads; or returns
        the URI of an object with one payload per line. It is called again when the task
        resumes to enqueue more jobs, and must return the same payloads.
    :param op_args: Its positional arguments. (templated)
    :param op_kwargs: Its keyword arguments. (templated)
    """

    # Not the payloads: what the function returns is data.
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in RunqyBatchOperator.template_fields if name != "payloads"),
    )
    custom_operator_name = "@task.runqy_batch"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Iterable[Mapping[str, Any]] | str],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            payloads=(),
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        # Not DecoratedOperator's: in Airflow 3.0 that works only for functions.
        return RunqyBatchOperator.execute(self, context)

    def read_payloads(self, context: Context) -> tuple[Any, bool]:
        payloads = _call_function(self, context)
        # The function comes from the DAG's author, so it may name any file.
        return payloads, isinstance(payloads, str) and "://" in payloads


def runqy_batch_task(
    python_callable: Callable[..., Iterable[Mapping[str, Any]] | str] | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function that returns payloads: ``@task.runqy_batch``.

    :param python_callable: The function.
    :param kwargs: Arguments of ``RunqyBatchOperator``; ``runqy_queue`` is required, and
        ``payloads`` come from the function.

    Raises:
        TypeError: ``payloads`` is given.
    """
    if "payloads" in kwargs:
        raise TypeError(
            "@task.runqy_batch takes no payloads: return them from the function."
        )
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=RunqyBatchDecoratedOperator,
        **kwargs,
    )


def _call_function(task: DecoratedOperator, context: Context) -> Any:
    """Call the function of a task with its arguments and its parts of the context.

    Args:
        task: The task.
        context: The task instance's.
    """
    function = task.python_callable
    given = {**context, **task.op_kwargs}
    return function(*task.op_args, **determine_kwargs(function, task.op_args, given))
