# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The same jobs, waited for by us, by the peer and by the floor.

conf has ``seconds``, a list.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.sdk import DAG, BaseHook, BaseOperator, get_current_context, task

from devtools.benchmarks.bare_trigger import BareTaskTrigger
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.operators.runqy import RunqyOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

BUCKET = "results"

#: As ``[runqy] settle_seconds``.
SETTLE_SECONDS = 10.0

LIMITS: dict[str, Any] = {"max_active_tasks": 1000, "max_active_runs": 4}


class PeerSensor(S3KeySensor):
    """amazon's sensor, which first enqueues the job whose object it waits for."""

    template_fields = (*S3KeySensor.template_fields, "seconds")

    def __init__(self, *, seconds: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context: Context) -> None:
        """Enqueue, then wait."""
        at = {"Bucket": BUCKET, "Key": self.bucket_key}
        url = S3Hook().generate_presigned_url("put_object", at, http_method="PUT")
        payload = {"put_url": url, "seconds": float(self.seconds)}
        with RunqyHook() as hook:
            hook.enqueue("put", payload)
        super().execute(context)


class FloorOperator(BaseOperator):
    """The least that runs a job and ends with it: one request, one message."""

    template_fields = ("seconds", "key")

    def __init__(
        self,
        *,
        seconds: Any,
        key: str,
        settle: float | None = None,
        xcom: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds
        self.key = key
        self.settle = settle
        self.xcom = xcom

    def execute(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        """Enqueue, then wait."""
        redis = BaseHook.get_connection("redis_default")
        url = f"redis://{redis.host}:{redis.port}"
        payload = {"redis_url": url, "key": self.key, "seconds": float(self.seconds)}
        with RunqyHook() as hook:
            hook.enqueue("tell", payload)
        resume_at = None if self.settle is None else time.time() + self.settle
        trigger = BareTaskTrigger(url, self.key, resume_at, self.xcom)
        self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: Context, event: Any) -> Any:  # noqa: ARG002 - Airflow's signature
        """Return what the message said."""
        return event


@task
def payloads() -> list[dict[str, Any]]:
    """Return the payload of each job."""
    conf = get_current_context()["dag_run"].conf or {}
    return [{"n": n, "seconds": s} for n, s in enumerate(conf["seconds"])]


@task
def seconds() -> list[float]:
    """Return how long each job works."""
    return list((get_current_context()["dag_run"].conf or {})["seconds"])


def ours(dag_id: str, **arguments: Any) -> None:
    """Make a DAG of ours."""
    with DAG(dag_id, schedule=None, **LIMITS):
        RunqyOperator.partial(task_id="wait", runqy_queue="work", **arguments).expand(
            payload=payloads()
        )


ours("webhook", sink="webhook")
ours("s3", sink="s3://results/ours")
ours("on_worker", sink="webhook", end_from_trigger=False)
ours(
    "on_worker_1",
    sink="webhook",
    end_from_trigger=False,
    defer_after=timedelta(seconds=1),
)
# Defers at once, whatever the job, so that each task is resumed.
ours(
    "resumed", sink="webhook", end_from_trigger=False, defer_after=timedelta(seconds=0)
)

for choice in (0, 1, 2):
    ours(f"defer_after_{choice}", defer_after=timedelta(seconds=choice))
ours("not_deferred", deferrable=False)

with DAG("peer", schedule=None, **LIMITS):
    PeerSensor.partial(
        task_id="wait",
        bucket_name=BUCKET,
        bucket_key="peer/{{ run_id }}/{{ ti.map_index }}",
        poke_interval=5,
        deferrable=True,
    ).expand(seconds=seconds())

for name, settle, xcom in (
    ("floor", None, ""),
    ("floor_with_xcom", None, "floor"),
    ("floor_on_worker", SETTLE_SECONDS, ""),
):
    with DAG(name, schedule=None, **LIMITS):
        FloorOperator.partial(
            task_id="wait",
            key=name + "/{{ run_id }}/{{ ti.map_index }}",
            settle=settle,
            xcom=xcom,
        ).expand(seconds=seconds())
