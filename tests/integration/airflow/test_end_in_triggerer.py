"""Tasks that the triggerer ends: a real triggerer process writes their XComs."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_delivery import Delivery, JobError
from runqy_provider.inbox import callback_url as capability
from runqy_provider.inbox import keys
from runqy_provider.jobs.task_end import TaskEnd
from runqy_provider.triggers.delivery import DeliveryTrigger
from tests.support.triggerer_process import Triggerer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import World

END = TaskEnd(operator="RunqyOperator", tags={"dag_id": "d", "task_id": "t1"})


@dataclass
class Case:
    """One wait whose delivery arrives; what came of it, once the triggerer has run."""

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
    xcoms: dict[str, Any] | None = None

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

    def deliver(self, world: World) -> None:
        """Deliver the result."""
        if self.object is not None:
            _put(world, f"end/{self.delivery_id}", self.object, "image/png")
            return
        failed = {} if self.error is None else {"status": "failed", "error": self.error}
        delivery = Delivery(self.delivery_id, result=self.result, **failed)  # type: ignore[arg-type]
        extra = world.connections["runqy_default"]["extra"]
        base, secret = extra["callback_url"], extra["callback_secret"]
        until = int(time.time()) + 60
        url = capability.url(base, secret, "runqy_default", self.delivery_id, until)
        httpx.post(url, content=delivery.to_json()).raise_for_status()


OPERATOR = "RunqyOperator"
FAILURE = JobError("too dark", "ValueError")


def _cases() -> dict[str, Case]:
    expanded = TaskEnd(OPERATOR, is_expanded_over=True, is_dag_result=True)
    return {
        "value": Case({"words": [1, 2]}, settle=60),
        "again": Case({"words": [1, 2]}, settle=60),
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
def cases(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All cases in one triggerer, after it has ended the tasks or let them go on."""
    found = _cases()
    _run(found, world, tmp_path_factory.mktemp("triggerer"))
    return found


def _run(
    cases: dict[str, Case],
    world: World,
    folder: Path,
    environment: dict[str, str] | None = None,
) -> None:
    for case in cases.values():
        case.delivery_id = f"end-{uuid.uuid4().hex}"
    # The same delivery, seen by a trigger that runs again elsewhere.
    if "again" in cases:
        cases["again"].delivery_id = cases["value"].delivery_id
    numbered = dict(enumerate(cases.values()))
    with Triggerer(
        folder,
        {n: case.trigger() for n, case in numbered.items()},
        world.connections,
        environment=environment,
        refused={f"t{n}": case.refused for n, case in numbered.items()},
    ) as triggerer:
        for case in cases.values():
            case.deliver(world)
        triggerer.run_until(lambda: len(triggerer.events) == len(cases))
        assert triggerer.failures == {}
        for n, case in numbered.items():
            case.event = triggerer.events[str(n)]
            case.fired_at = triggerer.fired_at[str(n)]
            case.xcoms = triggerer.xcoms.get(f"t{n}", {})


def _put(world: World, key: str, body: bytes, content_type: str) -> None:
    import boto3

    aws = world.connections["aws_default"]
    boto3.client(
        "s3",
        endpoint_url=world.sandbox.s3_url,
        aws_access_key_id=aws["login"],
        aws_secret_access_key=aws["password"],
        region_name="us-east-1",
    ).put_object(Bucket="results", Key=key, Body=body, ContentType=content_type)


def test_a_result_ends_its_task_with_the_xcoms_of_a_worker(
    cases: dict[str, Case],
) -> None:
    case = cases["value"]

    assert case.event == "success"
    assert case.fired_at < case.not_before, "a resume would have to wait"
    assert case.xcoms["return_value"]["value"] == {"words": [1, 2]}
    receipt = case.xcoms["runqy_delivery"]["value"]
    assert (receipt["job_id"], receipt["status"]) == ("job-1", "completed")
    assert receipt["where"] == f"inbox://runqy_default/{case.delivery_id}"


def test_a_trigger_that_runs_again_writes_the_same(cases: dict[str, Case]) -> None:
    assert cases["again"].event == "success"
    assert cases["again"].xcoms == cases["value"].xcoms


def test_the_inbox_keeps_a_result_until_its_task_has_surely_ended(
    cases: dict[str, Case], world: World
) -> None:
    key = keys.delivery("runqy_default", cases["value"].delivery_id)
    with Redis.from_url(world.sandbox.redis_url) as redis:
        assert redis.ttl(key) > keys.READ_TTL


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("null", {"runqy_delivery"}),
        ("no push", {"runqy_delivery"}),
        ("sensor", {"return_value"}),
    ],
)
def test_what_is_not_asked_for_is_not_written(
    cases: dict[str, Case], name: str, written: set[str]
) -> None:
    assert cases[name].event == "success"
    assert set(cases[name].xcoms) == written


def test_the_length_is_recorded_for_a_mapped_task_downstream(
    cases: dict[str, Case],
) -> None:
    query = cases["expanded"].xcoms["return_value"]["query"]

    assert query["mapped_length"] == "2"
    assert query["dag_result"].lower() == "true"


@pytest.mark.parametrize(
    "name", ["expanded number", "expanded null", "failed", "large"]
)
def test_what_only_a_worker_can_end_goes_to_a_worker(
    cases: dict[str, Case], name: str
) -> None:
    assert cases[name].event["event"] == "arrived"
    assert cases[name].xcoms == {}


def test_a_worker_is_not_asked_before_the_settling_time(
    cases: dict[str, Case],
) -> None:
    assert cases["failed"].fired_at >= cases["failed"].not_before


def test_an_object_over_the_limit_is_a_reference_with_its_link(
    cases: dict[str, Case],
) -> None:
    case = cases["object"]

    assert case.event == "success"
    reference = case.xcoms["return_value"]["value"]
    assert (reference["size"], reference["content_type"]) == (300_000, "image/png")
    link = case.xcoms["_link_ResultLink"]["value"]
    assert case.xcoms["runqy_delivery"]["value"]["download_url"] == link
    assert len(httpx.get(link).content) == 300_000


def test_an_xcom_that_is_not_taken_goes_to_a_worker(cases: dict[str, Case]) -> None:
    assert cases["refused"].event["event"] == "arrived"
    assert "return_value" not in cases["refused"].xcoms


def test_a_custom_xcom_backend_is_used(world: World, tmp_path: Path) -> None:
    backend = """
import json
from airflow.sdk.bases.xcom import BaseXCom

class Backend(BaseXCom):
    @staticmethod
    def serialize_value(value, **kwargs):
        return "elsewhere:" + json.dumps(value)
"""
    (tmp_path / "own_backend.py").write_text(backend)
    cases = {"value": Case({"a": 1})}
    own = {
        "PYTHONPATH": str(tmp_path),
        "AIRFLOW__CORE__XCOM_BACKEND": "own_backend.Backend",
    }
    _run(cases, world, tmp_path, own)

    assert cases["value"].event == "success"
    stored = cases["value"].xcoms["return_value"]["value"]
    assert json.loads(stored.removeprefix("elsewhere:")) == {"a": 1}


def test_without_a_task_instance_the_event_is_an_ordinary_one(
    world: World, connect: Callable[..., Any]
) -> None:
    """``dag.test()`` runs triggers so, and takes each event for an ordinary one."""
    import asyncio

    from runqy_provider.waiters.registry import close_waiters

    connect()
    delivery_id = f"end-{time.time_ns()}"
    trigger = DeliveryTrigger(
        runqy_conn_id="runqy_default",
        delivery_id=delivery_id,
        sink="s3://results/end",
        deadline=time.time() + 60,
        task_end=END.to_json(),
    )
    _put(world, f"end/{delivery_id}", b"1", "application/json")

    async def first_event() -> Any:
        try:
            async for event in trigger.run():
                return event.payload
            raise AssertionError("no event")
        finally:
            await close_waiters()

    assert asyncio.run(first_event())["event"] == "arrived"
