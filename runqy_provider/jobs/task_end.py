# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the triggerer may end a task by itself, and what it must know for that.

A task that ends in the triggerer needs no second worker start and cannot meet
Airflow's resume race. But Airflow then skips much of what it does at the end of a task
on a worker (``finalize`` and ``_handle_current_task_success`` of its task runner), so
this is done only for tasks that lose nothing by it.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from runqy_provider.airflow_compat import conf, get_listener_manager, stats_tags
from runqy_provider.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context

log = logging.getLogger(__name__)

#: What runs once more on a worker after the wait; a subclass may have its own.
RESUMED = ("execute_complete", "resume_execution")


@dataclass(frozen=True)
class TaskEnd:
    """How to end a task. Plain JSON in the trigger's arguments.

    Attributes:
        operator: Class name of the operator, for Airflow's metrics.
        tags: Airflow's metric tags of the task instance.
        started_at: When the task started, in seconds since 1970.
        pushes_result: Whether the result goes to XCom (``do_xcom_push``).
        pushes_receipt: Whether the XCom ``runqy_delivery`` and the link are written.
        is_expanded_over: Whether a mapped task downstream needs the result's length.
        is_dag_result: Whether the result is the DAG's.
        returns: What the task returns; see ``RunqyResultHook.collect``.
    """

    operator: str
    tags: dict[str, str] = field(default_factory=dict)
    started_at: float | None = None
    pushes_result: bool = True
    pushes_receipt: bool = True
    is_expanded_over: bool = False
    is_dag_result: bool = False
    returns: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def task_end_of(
    task: BaseOperator,
    context: Context,
    *,
    wanted: bool | None,
    own: type[BaseOperator],
    pushes_receipt: bool,
    returns: str,
) -> TaskEnd | None:
    """Decide whether the triggerer may end a task.

    Args:
        task: The task, as it is executed.
        context: Its context.
        wanted: The task's ``end_from_trigger``: None decides by what would be lost,
            True demands it, False never does it.
        own: The operator class of ours that ``task`` is one of.
        pushes_receipt: See ``TaskEnd``.
        returns: See ``TaskEnd``.

    Returns:
        What the trigger must know; None where a worker is to end the task.

    Raises:
        Misconfigured: It is demanded, and something would be lost by it.
    """
    if wanted is False:
        return None
    lost = list(losses(task, own))
    if lost and wanted:
        raise Misconfigured(
            f"end_from_trigger=True would lose {', '.join(lost)} of task "
            f"{task.task_id!r}. Nothing was enqueued. Leave end_from_trigger out, so "
            "that a worker ends this task, or remove these from the task."
        )
    if lost:
        log.info("A worker will end this task, because it has %s.", ", ".join(lost))
        return None
    ti: Any = context["ti"]
    is_mapped = ti.map_index is not None and ti.map_index >= 0
    return TaskEnd(
        operator=type(task).__name__,
        tags=stats_tags(ti),
        started_at=ti.start_date.timestamp() if ti.start_date else None,
        pushes_result=task.do_xcom_push,
        pushes_receipt=pushes_receipt,
        is_expanded_over=not is_mapped
        and next(task.iter_mapped_dependants(), None) is not None,
        is_dag_result=getattr(task, "returns_dag_result", False),
        returns=returns,
    )


def losses(task: BaseOperator, own: type[BaseOperator]) -> Iterator[str]:
    """Yield what a task would lose if the triggerer ended it, for messages."""
    if task.outlets:
        yield "asset events of its outlets"
    if task.on_success_callback:
        yield "on_success_callback"
    # Airflow's own test for both; the attribute is what ``post_execute=`` sets.
    if (
        task._post_execute_hook is not None  # noqa: SLF001 - no public name
        or type(task).post_execute is not BaseOperator.post_execute
    ):
        yield "post_execute"
    for name in RESUMED:
        if getattr(type(task), name) is not getattr(own, name):
            yield f"{name} of {type(task).__name__}"
    if task.multiple_outputs:
        yield "multiple_outputs"
    if task.map_index_template:
        yield "map_index_template"
    if task.overwrite_rtif_after_execution:
        yield "rendered template fields that are written after execution"
    known = {type(link) for link in own.operator_extra_links}
    links = [link for link in task.operator_extra_links if type(link) not in known]
    if links:
        yield f"the links {', '.join(link.name for link in links)}"
    yield from _of_the_deployment()


def _of_the_deployment() -> Iterator[str]:
    hook = get_listener_manager().hook.on_task_instance_success
    listeners = [one.plugin_name for one in hook.get_hookimpls()]
    if listeners:
        yield f"calls of listeners ({', '.join(listeners)})"
    if conf.getboolean("state_store", "clear_on_success", fallback=False):
        yield "[state_store] clear_on_success"
    if conf.getboolean("traces", "otel_on", fallback=False):
        yield "the task's trace span ([traces] otel_on)"
