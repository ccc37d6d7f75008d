"""``python -m runqy_delivery run``: what it shows, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: The protocol of runqy_python's run(), which this environment may lack.
RUN = """
import json, os, sys, traceback
import urllib.request
from runqy_delivery import Result, delivers, progress

def send(message):
    protocol.write(json.dumps(message) + "\\n")
    protocol.flush()

def post(url, delivery):
    body = json.dumps(delivery).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body)) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code

def run():
    send({"status": "ready"})
    for line in sys.stdin:
        job = json.loads(line)
        answer = {"task_id": job["task_id"], "result": None, "error": None}
        try:
            answer["result"] = handle(job["payload"])
        except Exception:
            answer["error"] = traceback.format_exc()
        send({**answer, "retry": False})

protocol = os.fdopen(os.dup(1), "w")
sys.stdout = sys.stderr
"""


class Outcome:
    """How one run of the command ended.

    Args:
        process: The process, which has ended.
    """

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.status = process.returncode
        self.shown = process.stdout
        self.errors = process.stderr


def run(
    folder: Path, code: str, *options: str, payload: Any = None, protocol: str = RUN
) -> Outcome:
    """Run the command for task code, with the payload in a file."""
    main, file = folder / "main.py", folder / "payload.json"
    main.write_text(f"{protocol}\n{code}\n")
    file.write_text(json.dumps(payload or {"input": "a.wav"}))
    return command("run", str(main), str(file), *options)


def command(*arguments: str, stdin: str = "") -> Outcome:
    process = subprocess.run(
        [sys.executable, "-m", "runqy_delivery", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        encoding="utf-8",
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "COLUMNS": "200"},
        timeout=50,
    )
    return Outcome(process)


def test_run_json_result_is_shown_with_status_0(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        "@delivers\ndef handle(payload):\n"
        "    progress(0.5, 'listening')\n"
        "    print('on stderr')\n"
        "    return {'keys': list(payload), 'text': payload['input']}\nrun()",
    )

    assert outcome.status == 0
    assert outcome.shown.splitlines() == [
        "progress  50% listening",
        "delivery: completed",
        "  content type: application/json",
        "  size: 33 bytes",
        '  value: {"keys":["input"],"text":"a.wav"}',
        "told to runqy:",
        "  result: null",
    ]
    assert "on stderr" in outcome.errors


def test_run_bytes_result_is_shown_with_its_content_type(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        "@delivers\ndef handle(payload):\n"
        "    return Result(b'\\x89PNG' * 1000, 'image/png', {'side': 8})\nrun()",
    )

    assert outcome.status == 0
    assert "  content type: image/png\n  size: 4,000 bytes\n" in outcome.shown
    assert '  metadata: {"side":8}\n' in outcome.shown
    assert r"  value: b'\x89PNG" in outcome.shown
    assert len(outcome.shown) < 2000


def test_run_failure_is_shown_with_traceback_and_log(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        "import logging\n@delivers\ndef handle(payload):\n"
        "    logging.getLogger('model').warning('no audio track')\n"
        "    raise ValueError('nothing to hear')\nrun()",
    )

    assert outcome.status == 1
    assert "delivery: failed\n  type: ValueError\n  message: nothing to hear\n" in (
        outcome.shown
    )
    assert "    Traceback (most recent call last):\n" in outcome.shown
    assert "WARNING model: no audio track" in outcome.shown


def test_run_code_after_guide_is_shown(tmp_path: Path) -> None:
    """Task code that posts itself: the first final delivery is kept."""
    outcome = run(
        tmp_path,
        "def handle(payload):\n"
        "    url, id = payload['webhook_url'], payload['task_id']\n"
        "    first = {'task_id': id, 'status': 'completed', 'result_url': 's3://b/k'}\n"
        "    return [post(url, first), post(url, first),\n"
        "            post(url, {**first, 'result_url': 's3://b/other'}),\n"
        "            post(url, {'status': 'completed'}), post(url + '/x', first)]\n"
        "run()",
    )

    assert outcome.status == 0
    assert "  result URL: s3://b/k\n" in outcome.shown
    assert "result: [200,200,409,400,403]" in outcome.shown
    for status in (409, 400, 403):
        assert f"refused delivery: {status}: " in outcome.shown


def test_run_too_large_delivery_after_guide_is_refused(tmp_path: Path) -> None:
    outcome = run(
        tmp_path,
        "def handle(payload):\n"
        "    return post(payload['webhook_url'], {'result': 'x' * 2**23})\nrun()",
    )

    assert "refused delivery: 413: " in outcome.shown
    assert "  result: 413\n" in outcome.shown


def test_run_too_large_result_is_a_failure(tmp_path: Path) -> None:
    outcome = run(
        tmp_path, "@delivers\ndef handle(payload):\n    return b'1' * 2**23\nrun()"
    )

    assert outcome.status == 1
    assert "  type: ResultRefused\n" in outcome.shown
    assert "Use an object store" in outcome.shown


@pytest.mark.parametrize(("returned", "status"), [("7", 0), ("None", 1)])
def test_run_no_delivery_is_explained(
    tmp_path: Path, returned: str, status: int
) -> None:
    outcome = run(tmp_path, f"def handle(payload):\n    return {returned}\nrun()")

    assert outcome.status == status
    assert "No delivery was made. Put @delivers below @task" in outcome.shown


def test_run_error_told_to_runqy_has_status_1(tmp_path: Path) -> None:
    outcome = run(tmp_path, "def handle(payload):\n    return 1 / 0\nrun()")

    assert outcome.status == 1
    assert "ZeroDivisionError" in outcome.shown
    assert "  retry requested: no\n" in outcome.shown


def test_run_process_that_ends_during_job_has_status_1(tmp_path: Path) -> None:
    outcome = run(tmp_path, "def handle(payload):\n    os._exit(9)\nrun()")

    assert outcome.status == 1
    assert "ended with exit status 9 during the job" in outcome.errors


def test_run_job_that_takes_too_long_is_killed_with_its_processes(
    tmp_path: Path,
) -> None:
    """The second process would keep the command's stderr open for an hour."""
    outcome = run(
        tmp_path,
        "import subprocess\ndef handle(payload):\n"
        "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "run()",
        "--timeout",
        "5",
    )

    assert outcome.status == 1
    assert "did not answer within 5 s. --timeout allows more time" in outcome.errors


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("import no_such_module", (), "ended with exit status 1 before it was ready"),
        ("pass", (), "ends with run() of runqy_python"),
        (
            "send({'status': 'error', 'error': '@load failed: no GPU'})",
            (),
            "did not start: @load failed: no GPU",
        ),
        ("sys.stdin.read()", ("--timeout", "2"), "did not start"),
    ],
)
def test_run_code_that_does_not_start_has_status_2(
    tmp_path: Path, code: str, options: tuple[str, ...], message: str
) -> None:
    outcome = run(tmp_path, code, *options)

    assert outcome.status == 2
    assert message in outcome.errors


@pytest.mark.parametrize(
    ("payload", "message"),
    [("{", "is not valid JSON"), ("[1]", "is not a JSON object"), (None, "cannot be")],
)
def test_run_unusable_payload_has_status_2(
    tmp_path: Path, payload: str | None, message: str
) -> None:
    code, file = tmp_path / "main.py", tmp_path / "payload.json"
    code.touch()
    if payload is not None:
        file.write_text(payload)

    outcome = command("run", str(code), str(file))

    assert outcome.status == 2
    assert message in outcome.errors


def test_run_missing_code_has_status_2(tmp_path: Path) -> None:
    outcome = command("run", str(tmp_path / "main.py"), "-", stdin="{}")

    assert outcome.status == 2
    assert "is not a file" in outcome.errors


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "soon"])
def test_run_unusable_timeout_has_status_2(timeout: str) -> None:
    outcome = command("run", "main.py", "-", "--timeout", timeout)

    assert outcome.status == 2
    assert "--timeout" in outcome.errors


def test_run_runqy_python_with_payload_from_stdin(tmp_path: Path) -> None:
    """The real protocol, with @load and a print before run()."""
    pytest.importorskip("runqy_python")
    code = tmp_path / "main.py"
    code.write_text(
        "from runqy_python import load, run, task\n"
        "from runqy_delivery import delivers\n"
        "print('loading')\n"
        "@load\ndef setup():\n    return {'factor': 2}\n"
        "@task\n@delivers\ndef handle(payload, ctx):\n"
        "    return payload['n'] * ctx['factor']\n"
        "run()\n"
    )

    outcome = command("run", str(code), "-", stdin='{"n": 21}')

    assert (outcome.status, outcome.errors) == (0, "loading\n")
    assert "  value: 42\n" in outcome.shown
