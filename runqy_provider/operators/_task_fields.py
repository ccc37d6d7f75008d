# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the operators and the sensor read from their task, and set in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from runqy_provider.client.models import JobOptions
from runqy_provider.errors import Misconfigured
from runqy_provider.jobs.deferral import in_seconds
from runqy_provider.links.runqy import QueueLink, ResultLink, queue_url
from runqy_provider.models import DELIVERY_KEY
from runqy_provider.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import BaseOperator, Context

    from runqy_provider.models import Reference
    from runqy_provider.operators.runqy import RunqyTask


#: Fields that may be a Sink, or a list of sinks.
_SINKS = ("sink",)


def check_texts(
    task: BaseOperator, required: Iterable[str], optional: Iterable[str] = ()
) -> None:
    """Turn numbers into texts in fields of a task that must be texts.

    A native template renders ``"1234"`` to a number, and an XCom may hold anything.

    Args:
        task: The task, with its fields rendered.
        required: Names of the fields that must be texts.
        optional: Names of those that may also be None.

    Raises:
        Misconfigured: A field is neither a text nor a number.
    """
    for name in required:
        setattr(task, name, _text(task, name, getattr(task, name)))
    for name in optional:
        value = getattr(task, name)
        if value is not None:
            setattr(task, name, _text(task, name, value))


def _text(task: BaseOperator, name: str, value: Any) -> Any:
    if isinstance(value, str) or (name in _SINKS and isinstance(value, Sink)):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if name in _SINKS and isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_text(task, name, each) for each in value]
    what = "None" if value is None else f"a {type(value).__name__}"
    raise Misconfigured(
        f"{name} of task {task.task_id!r} is {what}. It must be a text. If it comes "
        "from another task or a template, see the task's tab 'Rendered Templates'."
    )


def job_options(task: RunqyTask) -> JobOptions:
    """Return the options that a task sets for each of its jobs.

    Raises:
        Misconfigured: The value of an argument is not valid.
    """
    return JobOptions(
        in_seconds(task.job_timeout),
        task.max_retry,
        in_seconds(task.active_timeout),
        in_seconds(task.ttl_completed),
    )


def hide_links(task: RunqyTask) -> None:
    """Show no link of this provider until there is something to show.

    Airflow stores an XCom for each link that a task has when its process ends, even for
    an empty one.
    """
    ours = (ResultLink, QueueLink)
    task.operator_extra_links = tuple(
        link for link in task.operator_extra_links if not isinstance(link, ours)
    )


def show_result_link(task: RunqyTask, url: str | None) -> None:
    """Show where the result is, if there is a URL for it."""
    task.download_url = url
    if url:
        task.operator_extra_links = (*task.operator_extra_links, ResultLink())


def show_queue_link(task: RunqyTask, server_url: str, runqy_queue: str) -> None:
    """Show the queue of a job in runqy's dashboard."""
    if task.queue_url is None:
        task.operator_extra_links = (*task.operator_extra_links, QueueLink())
    task.queue_url = queue_url(server_url, runqy_queue)


def add_to_outlets(task: RunqyTask, context: Context, reference: Reference) -> None:
    """Add the reference to a result to the asset events of a task's outlets."""
    for outlet in task.outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra[DELIVERY_KEY] = reference.to_xcom()
