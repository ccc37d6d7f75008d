# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``@task.runqy_batch``: a function makes the payloads of many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from runqy_provider.decorators.call import call_function
from runqy_provider.operators.runqy_batch import RunqyBatchOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


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
        """Enqueue the first jobs, or take over those of the previous attempt; wait."""
        # Not DecoratedOperator's: in Airflow 3.0 that works only for functions.
        return RunqyBatchOperator.execute(self, context)

    def read_payloads(self, context: Context) -> Any:
        """Call the function."""
        payloads = call_function(self, context)
        # The function comes from the DAG's author, so it may name any file.
        self.may_be_uri = isinstance(payloads, str) and "://" in payloads
        return payloads


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
