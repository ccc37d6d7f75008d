# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What the operators share: their arguments, and what they set in their task.

A DAG file imports this module: what only a worker needs is imported by its functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.errors import Misconfigured
from runqy_provider.links import QueueLink, ResultLink, queue_url
from runqy_provider.models import AUTO, DELIVERY_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow.sdk import BaseOperatorLink, Context

    from runqy_provider.client.models import JobOptions
    from runqy_provider.models import Reference, Returns
    from runqy_provider.sinks.registry import SinkArgument

#: How long a task waits for a delivery by default.
DELIVERY_TIMEOUT = timedelta(hours=24)

#: How long a task waits in its slot before it defers, by default. Tasks with jobs of
#: half a second then end at once instead of after 2 s; longer ones hold their slots for
#: 10 % longer (devtools/benchmarks/defer_after.py).
DEFER_AFTER = timedelta(seconds=1)

#: The same for a task that a worker must end: its second start takes about as long.
DEFER_AFTER_ON_WORKER = timedelta(seconds=5)

#: Fields that may be a Sink, or a list of sinks.
_SINKS = ("sink",)


class RunqyTask(BaseOperator):
    """What the operators for one job and for many share: arguments and links.

    The arguments are described at ``RunqyOperator``.
    """

    ui_color = "#e3f0e8"
    operator_extra_links: Collection[BaseOperatorLink] = (ResultLink(), QueueLink())

    def __init__(
        self,
        *,
        runqy_queue: str,
        sink: SinkArgument | None = None,
        runqy_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        delivery_timeout: timedelta = DELIVERY_TIMEOUT,
        defer_after: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        job_timeout: timedelta | None = None,
        max_retry: int | None = None,
        active_timeout: timedelta | None = None,
        ttl_completed: timedelta | None = None,
        delete_abandoned: bool = True,
        returns: Returns = AUTO,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.runqy_queue = runqy_queue
        self.sink = sink
        self.runqy_conn_id = runqy_conn_id
        self.deferrable = deferrable
        self.delivery_timeout = delivery_timeout
        self.defer_after = defer_after
        self.heartbeat_timeout = heartbeat_timeout
        self.job_timeout = job_timeout
        self.max_retry = max_retry
        self.active_timeout = active_timeout
        self.ttl_completed = ttl_completed
        self.delete_abandoned = delete_abandoned
        self.returns = returns
        self.download_url: str | None = None
        self.queue_url: str | None = None
        self.receipt: dict[str, Any] | None = None

    def job_options(self) -> JobOptions:
        """Return the options that the task sets for each of its jobs.

        Raises:
            Misconfigured: The value of an argument is not valid.
        """
        from runqy_provider.client.models import JobOptions  # noqa: PLC0415 - see above
        from runqy_provider.jobs.outcome import in_seconds  # noqa: PLC0415 - see above

        return JobOptions(
            in_seconds(self.job_timeout),
            self.max_retry,
            in_seconds(self.active_timeout),
            in_seconds(self.ttl_completed),
        )

    def hide_links(self) -> None:
        """Show no link of this provider until there is something to show.

        Airflow stores an XCom for each link that a task has when its process ends, even
        for an empty one.
        """
        ours = (ResultLink, QueueLink)
        self.operator_extra_links = tuple(
            link for link in self.operator_extra_links if not isinstance(link, ours)
        )

    def show_result_link(self, url: str | None) -> None:
        """Show where the result is, if there is a URL for it."""
        self.download_url = url
        if url:
            self.operator_extra_links = (*self.operator_extra_links, ResultLink())

    def show_queue_link(self, server_url: str, runqy_queue: str) -> None:
        """Show the queue of a job in runqy's dashboard."""
        if self.queue_url is None:
            self.operator_extra_links = (*self.operator_extra_links, QueueLink())
        self.queue_url = queue_url(server_url, runqy_queue)

    def add_to_outlets(self, context: Context, reference: Reference) -> None:
        """Add the reference to a result to the asset events of the task's outlets."""
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                extra = context["outlet_events"][outlet].extra
                extra[DELIVERY_KEY] = reference.to_xcom()


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
    from runqy_provider.sinks.base import Sink  # noqa: PLC0415 - see above

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
