"""What the tests use of Airflow that differs between its versions."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.sdk.execution_time import supervisor

from runqy_provider.airflow_compat import RELEASE, deserialize, resolve, serialize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import BaseOperator
    from airflow.sdk.api.client import Client

#: Whether Airflow keeps the state of a task between retries.
HAS_STATE_STORE = RELEASE >= (3, 3)

#: Whether a task's result may be that of its DAG.
HAS_DAG_RESULTS = RELEASE >= (3, 3)

DagBag = resolve("airflow.dag_processing.dagbag:DagBag", "airflow.models.dagbag:DagBag")
TaskInstanceDTO = resolve(
    "airflow.executors.workloads.task:TaskInstanceDTO",
    "airflow.executors.workloads:TaskInstance",
)
RunTrigger = resolve(
    "airflow.executors.workloads.trigger:RunTrigger",
    "airflow.executors.workloads:RunTrigger",
)
#: The library that Airflow's client of its execution API is made with.
http = resolve("airflow.sdk.api.client:httpx2", "airflow.sdk.api.client:httpx")
hookimpl = resolve(
    "airflow.sdk._shared.listeners:hookimpl", "airflow.listeners:hookimpl"
)


def known_fields(model: Any, **fields: Any) -> Any:
    """Make an instance of a pydantic model, without fields that it does not have."""
    return model(**{k: v for k, v in fields.items() if k in model.model_fields})


def run_task_in_process(ti: Any, task: BaseOperator, client: Client) -> Any:
    """Run a task in this process with a client of the execution API."""
    if RELEASE >= (3, 3):
        return supervisor.run_task_in_process(ti, task, client=client)

    class Supervisor(supervisor.InProcessTestSupervisor):
        @staticmethod
        def _api_client(dag: Any = None) -> Client:  # noqa: ARG004 - Airflow's signature
            return client

    return Supervisor.start(what=ti, task=task)


@contextmanager
def metrics_go_to(backend: Any) -> Iterator[None]:
    """Let Airflow's statistics go to a backend of the test's."""
    legacy = {"export_legacy_names": False} if RELEASE >= (3, 3) else {}
    # A process has two copies of them from 3.2 on: of tasks, and of the rest.
    names = ["airflow.stats"]
    if RELEASE >= (3, 2):
        names = ["airflow.observability.stats", "airflow.sdk.observability.stats"]
    with ExitStack() as stack:
        for name in names:
            module = resolve(name)
            stats = module if hasattr(module, "initialize") else module.Stats
            if hasattr(stats, "initialize"):
                stats.initialize(factory=lambda: backend, **legacy)
                stack.callback(stats.initialize, factory=_no_stats(), **legacy)
            else:
                fields = {"instance": backend, "_instance_pid": os.getpid()}
                for field, value in fields.items():
                    if hasattr(type(stats), field):
                        stack.enter_context(patch.object(stats, field, value))
        yield


def _no_stats() -> Any:
    return resolve(
        "airflow._shared.observability.metrics.base_stats_logger:NoStatsLogger"
    )


def as_sent(arguments: dict[str, Any]) -> Any:
    """Return a deferral's arguments as a task sends them: serialized from 3.2 on."""
    return arguments if RELEASE < (3, 2) else serialize(arguments)


def through_database(sent: Any) -> dict[str, Any]:
    """Return a value that a task sent, as Airflow's database returns it."""
    stored = to_database(sent) if RELEASE < (3, 2) else sent
    restored: dict[str, Any] = _deserialize(json.loads(json.dumps(stored)))
    return restored


def to_database(arguments: dict[str, Any]) -> Any:
    """Return arguments as Airflow's database has them."""
    return _old().serialize(arguments) if RELEASE < (3, 2) else serialize(arguments)


def next_kwargs(sent: Any, event: dict[str, Any]) -> Any:
    """Return a deferral's arguments with the event that ended it, in the database."""
    arguments = sent if RELEASE < (3, 2) else _deserialize(sent)
    return to_database({**arguments, "event": event})


def _deserialize(value: Any) -> Any:
    return (_old().deserialize if RELEASE < (3, 2) else deserialize)(value)


def _old() -> Any:
    return resolve("airflow.serialization.serialized_objects:BaseSerialization")
