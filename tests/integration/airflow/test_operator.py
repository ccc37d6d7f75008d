"""RunqyOperator through Airflow's task runner, a real sandbox and a real receiver."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis import Redis

from runqy_provider.errors import (
    BadDelivery,
    DeliveryTimeout,
    InvalidPayload,
    JobFailed,
    Misconfigured,
    NoAccess,
    NotAllowed,
    NotThere,
    PayloadTooLarge,
    QueueNotFound,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.models import JobRef, is_reference
from runqy_provider.operators._execution import Execution
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.sinks.object_store.s3 import S3Sink
from runqy_provider.sinks.object_store.s3_store import s3_client
from runqy_sandbox.process.net import free_port
from tests.support.harness import outcome_of, run_of

if TYPE_CHECKING:
    from tests.support.stack import Gate, Stack

pytestmark = pytest.mark.usefixtures("connect", "no_settling")

QUICK = timedelta(seconds=20)


@pytest.mark.parametrize(
    "sink", ["webhook", "s3://results/some/prefix", "s3://results"]
)
@pytest.mark.parametrize("value", [{"a": [1, None]}, None, "text", 0])
def test_operator_json_value_is_returned(sink: str, value: Any) -> None:
    assert outcome_of(run_of({"value": value}, sink=sink)) == value


@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_operator_waiting_task_defers_and_resumes(sink: str, gate: Gate) -> None:
    run = run_of({"value": 5, **gate.closed}, sink=sink).execute()

    assert run.state == "deferred"
    assert run.timeout > timedelta(hours=24)
    gate.open()
    event = run.fire()
    assert event["status"] == "completed"
    assert run.resume(event).value == 5


@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_operator_not_deferrable_returns_value(sink: str) -> None:
    run = run_of({"value": 5, "seconds": 0.3}, sink=sink, deferrable=False).execute()

    assert (run.state, run.value) == ("success", 5)


def test_operator_short_job_ends_without_deferral() -> None:
    run = run_of({"value": 1, "seconds": 0.3}, defer_after=QUICK).execute()

    assert (run.state, run.value) == ("success", 1)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("sink", ["webhook", "s3://results"])
def test_operator_job_failed_raises_error_of_handler(
    sink: str, *, deferrable: bool
) -> None:
    run = run_of({"error": "too dark"}, sink=sink, deferrable=deferrable)

    with pytest.raises(JobFailed, match="ValueError: too dark") as caught:
        outcome_of(run)
    assert caught.value.error_type == "ValueError"
    assert "raise ValueError" in str(caught.value.traceback)


def test_operator_s3_without_receiver_returns_values_and_failures(connect: Any) -> None:
    connect(without=("callback_secret",))

    assert outcome_of(run_of({"value": 7}, sink="s3://results/alone")) == 7
    with pytest.raises(JobFailed, match="too dark"):
        outcome_of(run_of({"error": "too dark"}, sink="s3://results/alone"))


def test_operator_guide_task_code_result_is_returned() -> None:
    by_webhook = run_of({"numbers": [1, 2]}, "guide_webhook", sink="webhook")
    by_s3 = run_of({"numbers": [3, 4]}, "guide_s3", sink="s3://results/elsewhere")

    assert outcome_of(by_webhook) == {"sum": 3}
    assert outcome_of(by_s3) == {"sum": 7}


@pytest.mark.parametrize("sink", ["webhook", "s3://results/large"])
def test_operator_large_or_binary_result_is_readable_reference(sink: str) -> None:
    large = outcome_of(run_of({"value": "x" * 100_000}, sink=sink))
    image = outcome_of(run_of({"bytes": 3_000_000}, sink=sink))

    assert is_reference(large)
    assert is_reference(image)
    assert (image["content_type"], image["size"]) == ("image/png", 3_000_000)
    hook = RunqyResultHook()
    assert hook.read(large).json() == "x" * 100_000
    assert hook.read(large).text() == '"' + "x" * 100_000 + '"'
    with hook.read(image).stream() as stream:
        assert stream.read(4) == b"xxxx"
    assert len(hook.read(image).bytes()) == 3_000_000


def test_operator_result_above_webhook_limit_fails_with_advice() -> None:
    with pytest.raises(JobFailed, match="s3://bucket/prefix"):
        outcome_of(run_of({"bytes": 9_000_000}))


def test_operator_sink_defaults_to_sink_of_connection(connect: Any) -> None:
    connect(sink="s3://results/by-default")
    run = run_of({"value": 1})

    assert outcome_of(run) == 1
    assert run.xcoms["runqy_job"]["sink"] == "s3://results/by-default"


def test_operator_sink_object_is_accepted() -> None:
    sink = S3Sink("results", "objects", aws_conn_id="aws_default")

    assert outcome_of(run_of({"value": 1}, sink=sink)) == 1


def test_operator_s3_sink_without_presign_returns_value() -> None:
    sink = S3Sink("results", "own-rights", presign=False)

    assert outcome_of(run_of({"value": 1}, sink=sink)) == 1


def test_operator_xcoms_record_job_and_delivery() -> None:
    run = run_of({"value": 1})
    outcome_of(run)

    job, delivery = run.xcoms["runqy_job"], run.xcoms["runqy_delivery"]
    assert job["runqy_queue"] == "helper.default"
    assert job["delivery_id"] == delivery["delivery_id"]
    assert delivery["status"] == "completed"
    assert delivery["where"].startswith("inbox://runqy_default/")


def test_operator_xcoms_trigger_and_fields_contain_no_secret(
    stack: Stack, gate: Gate
) -> None:
    run = run_of({"value": 1, **gate.closed}, sink="s3://results").execute()
    gate.open()
    event = run.fire()
    assert isinstance(run.task, RunqyOperator)
    shown = str((run.xcoms, run.trigger.serialize(), event, run.task.payload))

    assert "token=" not in shown
    assert "Signature" not in shown
    assert stack.connections["runqy_default"]["password"] not in shown


def test_operator_each_try_and_map_index_has_own_delivery_id() -> None:
    ids = []
    for try_number, map_index in ((1, -1), (2, -1), (1, 0), (1, 1)):
        run = run_of({"value": 1})
        run.run_id, run.try_number, run.map_index = "same", try_number, map_index
        outcome_of(run)
        ids.append(run.xcoms["runqy_job"]["delivery_id"])

    assert len(set(ids)) == 4


def test_operator_two_triggers_of_one_delivery_fire_same_event(gate: Gate) -> None:
    run = run_of({"value": 1, **gate.closed}).execute()
    gate.open()

    assert run.fire() == run.fire()


def test_operator_deadline_passed_error_names_sources_and_job(stack: Stack) -> None:
    run = run_of({}, "idle", delivery_timeout=timedelta(seconds=0.5)).execute()
    event = run.fire()

    with pytest.raises(DeliveryTimeout) as caught:
        raise run.resume(event).error
    message = str(caught.value)
    job = run.xcoms["runqy_job"]
    for expected in (
        f"/v1/deliveries/{job['delivery_id']}",
        stack.receiver_url,
        f"127.0.0.1:{stack.sandbox.redis_port}",
        "Last successful poll: 20",
        f"job {job['job_id']} in queue 'idle.default' is pending",
    ):
        assert expected in message
    assert "token" not in message


def test_operator_deadline_passed_error_names_forgotten_job() -> None:
    run = run_of({}, "silent", sink="s3://results/x", deferrable=False)
    run.task.delivery_timeout = timedelta(seconds=1)

    with pytest.raises(DeliveryTimeout, match="runqy has forgotten job") as caught:
        outcome_of(run)
    assert "s3://results/x/" in str(caught.value)


def test_operator_execution_timeout_shortens_deadline() -> None:
    run = run_of({}, "idle", execution_timeout=timedelta(seconds=30)).execute()

    assert run.trigger.deadline < time.time() + 31


@pytest.mark.parametrize(
    ("queue", "payload", "error", "message"),
    [
        ("nope", {}, QueueNotFound, "no queue 'nope'"),
        ("split", {}, QueueNotFound, "'split.default', and there is no such sub-queue"),
        ("typed", {"prompt": 3}, InvalidPayload, "field 'prompt' has type number"),
        ("helper", {"x": {1, 2}}, InvalidPayload, "is not JSON"),
        ("helper", [1, 2], InvalidPayload, "must be an object"),
        ("helper", {"webhook_url": "x"}, InvalidPayload, "'webhook_url'"),
        ("helper", {"x": "y" * (50 * 1024 * 1024)}, PayloadTooLarge, "52,4"),
    ],
)
def test_operator_invalid_payload_or_queue_is_refused_with_reason(
    stack: Stack, queue: str, payload: Any, error: type[Exception], message: str
) -> None:
    before = _jobs(stack)

    with pytest.raises(error, match=re.escape(message)):
        outcome_of(run_of(payload, queue))
    assert _jobs(stack) == before


def _jobs(stack: Stack) -> set[bytes]:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        return set(redis.keys("asynq:*:t:*"))


@pytest.mark.parametrize(
    ("change", "sink", "error", "message"),
    [
        ({"fields": {"password": "wrong"}}, "webhook", NotAllowed, "does not know"),
        ({"fields": {"password": None}}, "webhook", NotAllowed, "has no API key"),
        ({"fields": {"host": ""}}, "webhook", Misconfigured, "has no host"),
        ({"without": ("callback_url",)}, "webhook", Misconfigured, "no callback_url"),
        ({"without": ("callback_secret",)}, "webhook", Misconfigured, "openssl rand"),
        ({"callback_secret": "short"}, "webhook", Misconfigured, "fewer than 16"),
        ({"callback_url": "ftp://x"}, "webhook", Misconfigured, "must be the receiver"),
        ({"redis_conn_id": "no"}, "webhook", Misconfigured, "does not exist"),
        ({}, "s3://no-such-bucket-here", NotThere, "does not exist"),
        ({}, "s3://Bad_Bucket/x", Misconfigured, "is not a valid name of an S3 bucket"),
        ({}, "s3://results/x?speed=fast", Misconfigured, "not speed"),
        ({}, "carrier-pigeon", Misconfigured, "'carrier-pigeon' is not a valid sink"),
    ],
)
def test_operator_unusable_connection_or_sink_enqueues_nothing(
    stack: Stack,
    connect: Any,
    change: dict[str, Any],
    sink: str,
    error: type[Exception],
    message: str,
) -> None:
    connect(**change)
    before = _jobs(stack)

    with pytest.raises(error, match=re.escape(message)):
        outcome_of(run_of({"value": 1}, sink=sink))
    assert _jobs(stack) == before


def test_operator_api_key_with_wrong_role_is_refused(
    stack: Stack, connect: Any
) -> None:
    connect(fields={"password": stack.sandbox.worker_key})

    with pytest.raises(NotAllowed, match="needs the role client"):
        outcome_of(run_of({"value": 1}))


def test_operator_redis_unavailable_enqueues_nothing(
    stack: Stack, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect()
    port = free_port()
    monkeypatch.setenv("AIRFLOW_CONN_REDIS_DEFAULT", f"redis://127.0.0.1:{port}")
    before = _jobs(stack)

    with pytest.raises(SinkUnavailable, match=f"Redis at 127.0.0.1:{port}"):
        outcome_of(run_of({"value": 1}))
    assert _jobs(stack) == before


def test_operator_server_unavailable_fails_after_retries(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.hooks.runqy.RETRY_FOR", 1.0)
    url = f"http://127.0.0.1:{free_port()}"
    connect(fields={"host": url})

    with pytest.raises(ServerUnavailable, match=f"runqy at {url}"):
        outcome_of(run_of({"value": 1}))


def test_operator_bucket_without_access_enqueues_nothing(
    stack: Stack,
) -> None:
    """The endpoint checks credentials in this test, and does not know the stack's."""
    auth, before = f"{stack.sandbox.s3_url}/moto-api/reset-auth", _jobs(stack)
    httpx.post(auth, content="0").raise_for_status()
    try:
        with pytest.raises(NoAccess, match="Check the permissions"):
            outcome_of(run_of({"value": 1}, sink="s3://results"))
    finally:
        httpx.post(auth, content="1000000000").raise_for_status()
    assert _jobs(stack) == before


def test_operator_result_outside_bucket_is_not_fetched() -> None:
    run = run_of({"numbers": [1]}, "guide_s3", sink="s3://other-bucket")
    s3_client("aws_default").create_bucket(Bucket="other-bucket")

    with pytest.raises(NoAccess, match="outside the bucket s3://other-bucket"):
        outcome_of(run)


def test_operator_webhook_sink_result_url_is_not_fetched() -> None:
    with pytest.raises(NoAccess, match="fetches nothing"):
        outcome_of(run_of({"numbers": [1]}, "guide_s3", sink="webhook"))


def test_operator_object_not_json_is_bad_delivery() -> None:
    run = run_of({}, "idle", sink="s3://results/bad").execute()
    job = run.xcoms["runqy_job"]
    s3_client("aws_default").put_object(
        Bucket="results",
        Key=f"bad/{job['delivery_id']}",
        Body=b"not json",
        ContentType="application/json",
    )

    with pytest.raises(BadDelivery, match="is not JSON"):
        raise run.resume(run.fire()).error


def test_operator_value_like_a_reference_is_returned_as_reference() -> None:
    forged = {
        "uri": "s3://results/other-job",
        "content_type": "application/json",
        "size": 1,
        "delivery_id": "d",
        "metadata": None,
    }
    value = outcome_of(run_of({"value": forged}))

    assert value["uri"].startswith("inbox://")
    assert RunqyResultHook().read(value).json() == forged


@pytest.mark.parametrize("delivery_id", ["a/b", "../a", "a b", "", "x" * 200, "a\n"])
def test_delivery_id_with_unsafe_characters_is_refused(delivery_id: str) -> None:
    from runqy_provider.inbox.callback_url import check_delivery_id

    with pytest.raises(Misconfigured, match="is not a valid delivery_id"):
        check_delivery_id(delivery_id)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", {"k": ["\udfff"]}])
def test_operator_value_unfit_for_database_is_reference(value: Any) -> None:
    run = run_of({}, "idle").execute()
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload
    body = json.dumps({"task_id": payload["task_id"], "result": value})
    httpx.post(payload["webhook_url"], content=body).raise_for_status()
    reference = run.resume(run.fire()).value

    assert is_reference(reference)
    assert RunqyResultHook().read(reference).json() == value


class Supervisor:
    """Gives the state of a task whose worker Airflow ends."""

    def __init__(self, state: str | None) -> None:
        self._state = state

    def send(self, question: Any) -> Any:
        from airflow.sdk.execution_time.comms import ErrorResponse, TaskStatesResult

        if self._state == "no answer":
            return ErrorResponse()
        job_states = (
            {} if self._state == "deleted" else {question.task_ids[0]: self._state}
        )
        return TaskStatesResult(task_states={question.run_ids[0]: job_states})


@pytest.mark.parametrize(
    ("state", "is_deleted"),
    [
        ("failed", True),
        ("success", True),
        ("skipped", True),
        ("deleted", True),
        # The next try may wait for it by now:
        ("running", False),
        ("restarting", False),
        ("up_for_retry", False),
        ("deferred", False),
        (None, False),
        ("no answer", False),
    ],
)
def test_operator_killed_task_deletes_job_only_if_task_ended(
    state: str | None,
    is_deleted: bool,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    connect: Any,
) -> None:
    from airflow.sdk.execution_time import task_runner

    run = run_of({}, "idle").execute()
    task = run.task
    assert isinstance(task, RunqyOperator)
    ti: Any = SimpleNamespace(dag_id="d", run_id=run.run_id, task_id="t", map_index=-1)
    task.on_kill()  # a copy of the task ran: this one has enqueued nothing
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Supervisor(state), raising=False
    )

    def kill() -> None:
        execution = Execution(task, RunqyOperator)
        execution.job = JobRef(**run.xcoms["runqy_job"])
        execution.ti = ti
        execution.kill()

    kill()

    with Redis.from_url(stack.sandbox.redis_url) as redis:
        key = f"asynq:{{idle.default}}:t:{run.xcoms['runqy_job']['job_id']}"
        assert bool(redis.exists(key)) is not is_deleted
    kill()  # the job is deleted already: no error
    connect(without=("admin_api_key",), fields={"password": "wrong"})
    kill()  # not allowed: no error


def test_operator_execution_timeout_in_slot_raises_delivery_timeout() -> None:
    limit = timedelta(seconds=3)
    run = run_of({}, "idle", deferrable=False, execution_timeout=limit)

    with pytest.raises(DeliveryTimeout, match=r"within execution_timeout \(0:00:03\)"):
        outcome_of(run)


def test_operator_delivery_timeout_zero_is_refused() -> None:
    with pytest.raises(Misconfigured, match="longer than zero"):
        outcome_of(run_of({}, delivery_timeout=timedelta(0)))


def test_operator_object_without_content_type_is_read_as_json(stack: Stack) -> None:
    """Task code that only uploads an object does not set a content type."""
    run = run_of({}, "idle", sink="s3://results/untyped").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    s3_client("aws_default").put_object(
        Bucket="results", Key=f"untyped/{delivery_id}", Body=b'{"a": 1}'
    )

    assert run.resume(run.fire()).value == {"a": 1}


@pytest.mark.parametrize("body", [b'{"loss": NaN}', b"[" * 50_000], ids=["NaN", "deep"])
def test_operator_invalid_json_object_is_bad_delivery(body: bytes) -> None:
    run = run_of({}, "idle", sink="s3://results/no-json").execute()
    delivery_id = run.xcoms["runqy_job"]["delivery_id"]
    s3_client("aws_default").put_object(
        Bucket="results",
        Key=f"no-json/{delivery_id}",
        Body=body,
        ContentType="application/json",
    )

    with pytest.raises(BadDelivery, match="is not JSON"):
        raise run.resume(run.fire()).error


def test_operator_put_url_uses_signature_version_4(stack: Stack) -> None:
    """In us-east-1, boto3 signs with version 2 by default, which new buckets refuse."""
    run = run_of({}, "idle", sink="s3://results/signed").execute()
    with RunqyHook() as hook:
        payload = hook.get_job(run.xcoms["runqy_job"]["job_id"]).payload

    assert "X-Amz-Signature=" in payload["delivery"]["put_url"]
