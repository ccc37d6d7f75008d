"""Tasks that the triggerer ends: a real triggerer writes their XComs."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_delivery import Delivery, JobError
from runqy_provider.inbox import callback_url, keys
from runqy_provider.jobs.task_end import TaskEnd
from runqy_provider.triggers.delivery import DeliveryTrigger
from tests.support.triggerer_process import Triggerer
from tests.support.versions import HAS_DAG_RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import Stack

END = TaskEnd(operator="RunqyOperator", tags={"dag_id": "d", "task_id": "t1"})


@dataclass
class Case:
    """One delivery to wait for and, once the triggerer has run, the outcome."""

    result: Any = None
    error: JobError | None = None
    object: bytes | None = None
    end: TaskEnd | None = END
    settle: float = 0.0
    refused: str = ""
    delivery_id: str = ""
    not_before: float = 0.0
    event: Any = None
    fired_at: float = 0.0
    xcoms: dict[str, Any] = field(default_factory=dict)

    def trigger(self) -> DeliveryTrigger:
        """Return the trigger that waits."""
        self.not_before = time.time() + self.settle
        return DeliveryTrigger(
            runqy_conn_id="runqy_default",
            delivery_id=self.delivery_id,
            sink="webhook" if self.object is None else "s3://results/end",
            deadline=time.time() + 60,
            not_before=self.not_before,
            job_id="job-1",
            task_end=None if self.end is None else self.end.to_json(),
        )

    def deliver(self, stack: Stack) -> None:
        """Deliver the result."""
        if self.object is not None:
            _put(stack, f"end/{self.delivery_id}", self.object, "image/png")
            return
        if self.error is None:
            delivery = Delivery(self.delivery_id, result=self.result)
        else:
            delivery = Delivery(self.delivery_id, status="failed", error=self.error)
        extra = stack.connections["runqy_default"]["extra"]
        base, secret = extra["callback_url"], extra["callback_secret"]
        until = int(time.time()) + 60
        url = callback_url.url(base, secret, "runqy_default", self.delivery_id, until)
        httpx.post(url, content=delivery.to_json()).raise_for_status()


OPERATOR = "RunqyOperator"
FAILURE = JobError("too dark", "ValueError")


def _cases() -> dict[str, Case]:
    expanded = TaskEnd(OPERATOR, is_expanded_over=True, is_dag_result=HAS_DAG_RESULTS)
    return {
        "value": Case({"numbers": [1, 2]}, settle=60),
        "again": Case({"numbers": [1, 2]}, settle=60),
        "null": Case(None),
        "no push": Case(5, end=TaskEnd(OPERATOR, pushes_result=False)),
        "sensor": Case(5, end=TaskEnd("RunqySensor", pushes_receipt=False)),
        "expanded": Case(["a", "b"], end=expanded),
        "expanded number": Case(5, end=expanded),
        "expanded null": Case(None, end=expanded),
        "failed": Case(error=FAILURE, settle=6),
        "large": Case("x" * 100_000),
        "object": Case(object=b"x" * 300_000),
        "refused": Case(5, refused="return_value"),
    }


@pytest.fixture(scope="module")
def cases(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All cases, after one triggerer has ended or resumed their tasks."""
    found = _cases()
    _run(found, stack, tmp_path_factory.mktemp("triggerer"))
    return found


def _run(
    cases: dict[str, Case],
    stack: Stack,
    folder: Path,
    environment: dict[str, str] | None = None,
) -> None:
    for case in cases.values():
        case.delivery_id = f"end-{uuid.uuid4().hex}"
    # The same delivery, for a trigger that also runs in another triggerer.
    if "again" in cases:
        cases["again"].delivery_id = cases["value"].delivery_id
    numbered = dict(enumerate(cases.values()))
    with Triggerer(
        folder,
        {n: case.trigger() for n, case in numbered.items()},
        stack.connections,
        environment=environment,
        refused={f"t{n}": case.refused for n, case in numbered.items()},
    ) as triggerer:
        for case in cases.values():
            case.deliver(stack)
        triggerer.run_until(lambda: len(triggerer.events) == len(cases))
        assert triggerer.failures == {}
        for n, case in numbered.items():
            case.event = triggerer.events[str(n)]
            case.fired_at = triggerer.fired_at[str(n)]
            case.xcoms = triggerer.xcoms.get(f"t{n}", {})


def _put(stack: Stack, key: str, body: bytes, content_type: str) -> None:
    import boto3

    aws = stack.connections["aws_default"]
    boto3.client(
        "s3",
        endpoint_url=stack.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    ).put_object(Bucket="results", Key=key, Body=body, ContentType=content_type)


def test_task_end_result_arrived_writes_xcoms_and_succeeds(
    cases: dict[str, Case],
) -> None:
    case = cases["value"]

    assert case.event == "success"
    assert case.fired_at < case.not_before, "a resume would have to wait"
    assert case.xcoms["return_value"]["value"] == {"numbers": [1, 2]}
    receipt = case.xcoms["runqy_delivery"]["value"]
    assert (receipt["job_id"], receipt["status"]) == ("job-1", "completed")
    assert receipt["where"] == f"inbox://runqy_default/{case.delivery_id}"


def test_task_end_trigger_run_again_writes_same_xcoms(cases: dict[str, Case]) -> None:
    assert cases["again"].event == "success"
    assert cases["again"].xcoms == cases["value"].xcoms


def test_task_end_result_read_stays_in_inbox_beyond_read_ttl(
    cases: dict[str, Case], stack: Stack
) -> None:
    key = keys.delivery("runqy_default", cases["value"].delivery_id)
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        assert redis.ttl(key) > keys.READ_TTL


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("null", {"runqy_delivery"}),
        ("no push", {"runqy_delivery"}),
        ("sensor", {"return_value"}),
    ],
)
def test_task_end_xcom_not_requested_is_not_written(
    cases: dict[str, Case], name: str, written: set[str]
) -> None:
    assert cases[name].event == "success"
    assert set(cases[name].xcoms) == written


def test_task_end_mapped_task_downstream_records_length(
    cases: dict[str, Case],
) -> None:
    query = cases["expanded"].xcoms["return_value"]["query"]

    assert query["mapped_length"] == "2"
    assert (query.get("dag_result", "").lower() == "true") == HAS_DAG_RESULTS


@pytest.mark.parametrize(
    "name", ["expanded number", "expanded null", "failed", "large"]
)
def test_task_end_result_needing_worker_resumes_task(
    cases: dict[str, Case], name: str
) -> None:
    assert cases[name].event["kind"] == "arrived"
    assert cases[name].xcoms == {}


def test_task_end_resume_waits_for_settling_time(
    cases: dict[str, Case],
) -> None:
    assert cases["failed"].fired_at >= cases["failed"].not_before


def test_task_end_large_object_is_reference_with_link(
    cases: dict[str, Case],
) -> None:
    case = cases["object"]

    assert case.event == "success"
    reference = case.xcoms["return_value"]["value"]
    assert (reference["size"], reference["content_type"]) == (300_000, "image/png")
    link = case.xcoms["_link_ResultLink"]["value"]
    assert case.xcoms["runqy_delivery"]["value"]["download_url"] == link
    assert len(httpx.get(link).content) == 300_000


def test_task_end_xcom_refused_resumes_task(cases: dict[str, Case]) -> None:
    assert cases["refused"].event["kind"] == "arrived"
    assert "return_value" not in cases["refused"].xcoms


def test_task_end_custom_xcom_backend_is_used(stack: Stack, tmp_path: Path) -> None:
    backend = """
import json
from airflow.sdk.bases.xcom import BaseXCom

class Backend(BaseXCom):
    @staticmethod
    def serialize_value(value, **kwargs):
        return "own:" + json.dumps(value)
"""
    (tmp_path / "own_backend.py").write_text(backend)
    cases = {"value": Case({"a": 1})}
    own = {
        "PYTHONPATH": str(tmp_path),
        "AIRFLOW__CORE__XCOM_BACKEND": "own_backend.Backend",
    }
    _run(cases, stack, tmp_path, own)

    assert cases["value"].event == "success"
    stored = cases["value"].xcoms["return_value"]["value"]
    assert json.loads(stored.removeprefix("own:")) == {"a": 1}


def test_task_end_without_task_instance_resumes_task_at_once(
    stack: Stack, connect: Callable[..., Any]
) -> None:
    """``dag.test()`` runs triggers like this, and resumes the task after any event."""
    import asyncio

    from runqy_provider.waiters.waiter import close_waiters

    connect()
    delivery_id = f"end-{time.time_ns()}"
    trigger = DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=delivery_id,
        sink="s3://results/end",
        deadline=time.time() + 600,
        not_before=time.time() + 600,
        task_end=END.to_json(),
    )
    _put(stack, f"end/{delivery_id}", b"1", "application/json")

    async def first_event() -> Any:
        try:
            async for event in trigger.run():
                return event.payload
            raise AssertionError("no event")
        finally:
            await close_waiters()

    assert asyncio.run(asyncio.wait_for(first_event(), 300))["kind"] == "arrived"
