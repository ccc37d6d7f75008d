"""The checks of a connection: each finds what would make a task fail."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from devtools.receiver import running_receiver
from runqy_provider.__main__ import main
from runqy_provider.airflow_compat import PROCESS_CONTEXT
from runqy_provider.checks.connection import check_connection
from runqy_provider.hooks.runqy import RunqyHook
from runqy_sandbox.process.net import free_port
from tests.support.web_page import web_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stack import Stack

pytestmark = pytest.mark.usefixtures("connect")


@pytest.fixture(autouse=True)
def worker_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask as a worker does, also if this process has served Airflow's page before."""
    monkeypatch.setenv(PROCESS_CONTEXT, "client")


def found(conn_id: str = "runqy_default") -> dict[str, tuple[str, str]]:
    """Return status and message of each check, by subject."""
    return {
        each.subject: (each.status, each.message) for each in check_connection(conn_id)
    }


def test_check_connection_all_in_order_reports_each_subject(stack: Stack) -> None:
    results = found()

    assert list(results) == [
        "Server",
        "API key",
        "Queues",
        "Inbox",
        "Callback URL",
        "Default sink",
    ]
    # The sandbox has a queue that no worker serves.
    assert {status for status, _ in results.values()} <= {"ok", "warning"}
    assert stack.sandbox.server_url in results["Server"][1]
    assert stack.receiver_url in results["Callback URL"][1]


def test_check_queues_without_worker_are_named(connect: Callable[..., Any]) -> None:
    status, message = found()["Queues"]
    assert status == "warning"
    assert "No live worker serves idle.default" in message

    connect(without=("admin_api_key", "runqy_redis_conn_id"))
    status, message = found()["Queues"]
    assert status == "warning"
    assert "enter an admin key or runqy's own Redis" in message


@pytest.mark.parametrize(
    ("fields", "subject", "message"),
    [
        ({"password": "wrong"}, "API key", "Enter a valid API key (password)"),
        ({"password": "worker"}, "API key", "Enter a key with the role client"),
        ({"host": "closed"}, "Server", "cannot be reached"),
        ({"host": "page"}, "Server", "this is not a runqy server"),
        ({"host": "ftp://x"}, "Connection", "is not an http(s) URL"),
    ],
)
def test_check_server_wrong_field_fails_with_advice(
    fields: dict[str, str],
    subject: str,
    message: str,
    connect: Callable[..., Any],
    stack: Stack,
) -> None:
    with web_page() as page:
        values = {
            "worker": stack.sandbox.worker_key,
            "closed": f"http://127.0.0.1:{free_port()}",
            "page": page,
        }
        connect(fields={name: values.get(v, v) for name, v in fields.items()})
        status, text = found()[subject]

    assert status == "failed"
    assert message in text


@pytest.mark.parametrize(
    ("extra", "subject", "message"),
    [
        ({"admin_api_key": "wrong"}, "Queues", "Enter a valid admin key"),
        ({"redis_conn_id": "none_such"}, "Inbox", "'none_such'"),
        ({"callback_secret": "x" * 32}, "Callback URL", "another callback secret"),
        ({"callback_secret": None}, "Callback URL", "has no callback_secret"),
        ({"callback_url": "closed"}, "Callback URL", "cannot be reached"),
        ({"callback_url": "page"}, "Callback URL", "it is not the receiver"),
        ({"signing_secret": "whsec_" + "YWJj" * 8}, "Callback URL", ""),
        ({"signing_secret": "whsec_" + "YWJj" * 7}, "Connection", "openssl rand"),
        ({"callback_secret": "x" * 23}, "Connection", "openssl rand"),
        ({"sink": "s3://no-such-bucket/x"}, "Default sink", "no-such-bucket"),
        ({"sink": "sql://none_such/results"}, "Default sink", "none_such"),
        ({"sink": "ftp://x"}, "Default sink", "not a valid sink"),
    ],
)
def test_check_extra_field_wrong_fails_with_advice(
    extra: dict[str, str | None],
    subject: str,
    message: str,
    connect: Callable[..., Any],
) -> None:
    with web_page() as page:
        values = {"closed": f"http://127.0.0.1:{free_port()}/runqy", "page": page}
        connect(**{name: values.get(v or "", v) for name, v in extra.items()})
        status, text = found()[subject]

    # A receiver that asks for no signature accepts one.
    assert status == ("failed" if message else "ok")
    assert message in text


def test_check_callback_failed_is_warning_for_sink_without_webhook(
    connect: Callable[..., Any],
) -> None:
    connect(sink="s3://results/x", callback_secret=None)
    status, message = found()["Callback URL"]

    assert status == "warning"
    assert "Needed only for the sinks webhook and amqp" in message


def test_check_callback_receiver_with_other_redis_is_reported(
    connect: Callable[..., Any], stack: Stack
) -> None:
    secret = "s" * 32
    other = f"{stack.sandbox.redis_url.rpartition('/')[0]}/5"
    with running_receiver(other, secret) as receiver:
        connect(callback_url=receiver.url, callback_secret=secret)
        status, message = found()["Callback URL"]

    assert status == "failed"
    assert "uses another Redis" in message


def test_check_connection_unknown_id_fails() -> None:
    [result] = check_connection("none_such")

    assert result.status == "failed"
    assert "none_such" in result.message


def test_check_connection_enqueues_nothing(stack: Stack) -> None:
    with Redis.from_url(stack.sandbox.redis_url) as redis:
        before = set(redis.keys("asynq:*:t:*"))
        check_connection("runqy_default")
        assert set(redis.keys("asynq:*:t:*")) == before


def test_check_connection_report_has_no_secret(connect: Callable[..., Any]) -> None:
    connections = connect(password="wrong-key-of-the-test")
    extra = connections["runqy_default"]["extra"]
    _, text = RunqyHook().test_connection()

    for name in ("admin_api_key", "callback_secret"):
        assert extra[name] not in text


def test_hook_test_connection_lists_failures_first(connect: Callable[..., Any]) -> None:
    is_good, text = RunqyHook().test_connection()
    assert is_good
    assert "[ok] API key: " in text

    connect(fields={"password": "wrong"})
    is_good, text = RunqyHook().test_connection()
    assert not is_good
    assert text.startswith("[failed] API key: ")


def test_check_command_prints_report_and_exits_by_result(
    connect: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PROCESS_CONTEXT, "server")  # main sets it; undone afterwards
    assert main(["check", "runqy_default"]) == 0
    assert "[ok] API key: " in capsys.readouterr().out

    connect(fields={"password": "wrong"})
    assert main(["check"]) == 1
    assert "[failed] API key: " in capsys.readouterr().out


def test_check_command_without_database_says_where_to_check(tmp_path: Path) -> None:
    # A pod or an Edge worker that is told of no database has an empty one.
    url = f"sqlite:///{tmp_path}/empty.db"
    own = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}

    done = subprocess.run(
        [sys.executable, "-m", "runqy_provider", "check", "of_the_api_server"],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 1
    assert "database cannot be read here (OperationalError)" in done.stdout
    assert "RunqyHook(CONN_ID).test_connection()" in done.stdout
