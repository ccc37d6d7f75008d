"""Which modules an import of the operator loads: every parse of a DAG file does it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

#: Airflow's base classes are imported first, to see what the operator adds.
PROGRAM = """
import json, sys
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink
before = set(sys.modules)
from runqy_provider.operators.runqy import RunqyOperator
with DAG("parsed", schedule=None):
    RunqyOperator(task_id="job", runqy_queue="inference", payload={}, sink="webhook")
parsed = sorted(set(sys.modules) - before)
import runqy_provider.operators._execution
from runqy_provider.sinks.registry import sink_from_uri
sink_from_uri("webhook")
print(json.dumps([parsed, sorted(set(sys.modules) - before)]))
"""

#: Modules of the provider that a webhook job loads, and their lines. When a limit is
#: reached, something is merged; it is not raised.
MOST_MODULES, MOST_LINES = 50, 11_250

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


def test_operator_with_webhook_imports_few_modules() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    parsed, executed = json.loads(done.stdout.splitlines()[-1])

    def ours(modules: list[str]) -> list[str]:
        return [name for name in modules if name.startswith("runqy_provider.")]

    assert len(ours(parsed)) <= 12
    assert len(ours(executed)) <= MOST_MODULES
    assert sum(map(_lines, ours(executed))) <= MOST_LINES
    assert {name.partition(".")[0] for name in executed if _is_foreign(name)} <= FOREIGN


def _is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    is_known = top in {*sys.stdlib_module_names, "airflow", "runqy_provider"}
    return not is_known and not top.startswith("_")


def _lines(module: str) -> int:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return len(Path(found.origin).read_text(encoding="utf-8").splitlines())
