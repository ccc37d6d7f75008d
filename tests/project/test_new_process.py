"""What imports do in a new process: every parse of a DAG file does them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runqy_provider.airflow_compat import RELEASE

ROOT = Path(__file__).parents[2]

#: One process for all tests, as an import of Airflow takes seconds. Airflow's base
#: classes are imported first, to see what the operator adds.
PROGRAM = """
import json, socket, sys, threading
def refuse(*_, **__): raise SystemExit("a connection at import")
socket.socket.connect = refuse
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink
threads, before = threading.active_count(), set(sys.modules)
facts = {}

from runqy_provider.operators.runqy import RunqyOperator
with DAG("parsed", schedule=None):
    RunqyOperator(task_id="job", runqy_queue="inference", payload={}, sink="webhook")
parsed = set(sys.modules) - before
facts["parsed"] = sorted(parsed)

# Airflow loads these in each process that executes a task.
import airflow.sdk.execution_time.task_runner, runqy_provider.get_provider_info
before = set(sys.modules) - parsed
import runqy_provider.operators._execution
from runqy_provider.sinks.registry import sink_from_uri
sink_from_uri("webhook")
facts["executed"] = sorted(set(sys.modules) - before)

import runqy_provider.sensors.runqy, runqy_provider.triggers.delivery
from runqy_provider.plugins.runqy import RunqyPlugin
RunqyPlugin()
facts["loaded"] = sorted(sys.modules)
facts["threads"] = threading.active_count() - threads

from tests.support.versions import DagBag
bag = DagBag("dags")
facts["dags"], facts["errors"] = sorted(bag.dags), bag.import_errors
print("FACTS", json.dumps(facts))
"""

#: Modules of the provider that a webhook job loads, and their lines. When a limit is
#: reached, something is merged; it is not raised.
MOST_MODULES, MOST_LINES = 48, 10_150

#: The libraries that a webhook job loads besides; Airflow brings most of them.
FOREIGN = {
    "charset_normalizer",
    "croniter",
    "opentelemetry",
    "pydantic",
    "redis",
    "requests",
    "runqy_delivery",
    "tenacity",
    "urllib3",
}


def run_python(code: str) -> str:
    """Run a program in a new process, from the repository; return what it prints."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What the program has found."""
    lines = run_python(PROGRAM).splitlines()
    [line] = [line for line in lines if line.startswith("FACTS")]
    found: dict[str, Any] = json.loads(line.removeprefix("FACTS "))
    return found


def test_operator_with_webhook_imports_few_modules(facts: dict[str, Any]) -> None:
    executed = facts["executed"]

    assert len(_ours(facts["parsed"])) <= 12
    assert len(_ours(executed)) <= MOST_MODULES
    assert sum(map(_lines, _ours(executed))) <= MOST_LINES
    foreign = {name.partition(".")[0] for name in executed if _is_foreign(name)}
    # Before 3.3, modules of Airflow that it names load more of its own libraries.
    assert foreign <= FOREIGN or RELEASE < (3, 3)


def _ours(modules: list[str]) -> list[str]:
    return [name for name in modules if name.startswith("runqy_provider.")]


def _is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    is_known = top in {*sys.stdlib_module_names, "airflow", "runqy_provider"}
    return not is_known and not top.startswith("_")


def _lines(module: str) -> int:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return len(Path(found.origin).read_text(encoding="utf-8").splitlines())


def test_imports_start_no_thread_and_load_no_library_of_a_sink(
    facts: dict[str, Any],
) -> None:
    assert facts["threads"] == 0
    assert not {"boto3", "uvicorn"} & set(facts["loaded"])


def test_plugin_builds_no_app(facts: dict[str, Any]) -> None:
    assert "runqy_provider.plugins.runqy" in facts["loaded"]
    assert "runqy_provider.receiver.app" not in facts["loaded"]


def test_examples_are_imported(facts: dict[str, Any]) -> None:
    assert facts["errors"] == {}
    assert facts["dags"] == sorted(path.stem for path in (ROOT / "dags").glob("*.py"))


def test_provider_package_imports_nothing() -> None:
    code = (
        "import sys, runqy_provider;"
        "print([m for m in sys.modules if m.startswith(('airflow', 'runqy_'))])"
    )
    assert run_python(code).strip() == "['runqy_provider']"


def test_modules_without_airflow_can_be_imported() -> None:
    modules = (
        "runqy_delivery",
        "runqy_provider.receiver.app",
        "runqy_provider.inbox.reader",
    )
    run_python(f"import sys; sys.modules['airflow'] = None; import {','.join(modules)}")
