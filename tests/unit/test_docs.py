"""The code in the docs compiles, its imports exist, and its operators are valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk import task as airflow_task

from runqy_delivery import delivers
from runqy_provider.get_provider_info import get_provider_info
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.sensors.runqy import RunqySensor

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "runqy_delivery" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))

BLOCKS = [
    pytest.param(block, id=f"{page.parent.name}/{page.name}:{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_docs_python_block_runs(block: str) -> None:
    servers = ("Sandbox", "RunqyHook(", "RunqyResultHook().read")
    if any(name in block for name in servers):
        # These need servers: only what they import is checked.
        block = "\n".join(re.findall(r"^(?:from|import) .*", block, re.MULTILINE))
    # Task code would register a handler in this process, and wait for jobs.
    block = re.sub(r"^from runqy_python import .*$", "", block, flags=re.MULTILINE)
    names: dict[str, Any] = {
        "RunqyOperator": RunqyOperator,
        "RunqySensor": RunqySensor,
        "delivers": delivers,
        "task": lambda handle: handle,
        "run": lambda: None,
    }
    with DAG("docs", schedule=None):

        @airflow_task
        def scenes() -> list[dict[str, Any]]:
            return []

        names["scenes"] = type("Scenes", (), {"output": scenes()})
        exec(compile(block, "docs", "exec"), names)  # noqa: S102 - our own docs


def test_docs_list_every_operator_argument() -> None:
    import inspect

    table = (ROOT / "docs" / "operator.md").read_text()
    for name in inspect.signature(RunqyOperator.__init__).parameters:
        if name not in {"self", "kwargs", "__class__"}:
            assert f"| `{name}` |" in table


def test_docs_pages_are_linked_from_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in readme


@pytest.mark.parametrize(
    "page", ["docs/threat-model.md", "tests/regressions.md"], ids=str
)
def test_docs_named_tests_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"\b(test_\w+)`", text))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(
            r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE
        )
    }
    assert len(named) > 20
    assert named <= defined


def test_docs_numbers_equal_the_code() -> None:
    from runqy_provider.operators import runqy

    options = get_provider_info()["config"]["runqy"]["options"]
    text = (ROOT / "docs" / "operator.md").read_text()
    assert f"settle_seconds` ({options['settle_seconds']['default']})" in text
    assert int(options["xcom_limit"]["default"]) == 64 * 1024
    assert runqy.DEFER_AFTER.total_seconds() == 1
    assert runqy.DELIVERY_TIMEOUT.total_seconds() == 24 * 3600
