"""The Python code of the docs runs, and calls our classes with valid arguments."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk import task as airflow_task

from runqy_delivery import delivers
from runqy_provider.operators.runqy import RunqyOperator
from runqy_provider.operators.runqy_batch import RunqyBatchOperator
from runqy_provider.sensors.runqy import RunqySensor
from tests.support.doc_blocks import all_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = ("runqy_provider", "runqy_delivery", "runqy_sandbox")

#: What short examples use without an import.
WELL_KNOWN: dict[str, Any] = {
    "RunqyOperator": RunqyOperator,
    "RunqyBatchOperator": RunqyBatchOperator,
    "RunqySensor": RunqySensor,
    "delivers": delivers,
}


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_docs_python_block_runs(block: Any) -> None:
    # Task code would register a handler in this process, and wait for jobs.
    code = re.sub(r"^from runqy_python import .*$", "", block.code, flags=re.MULTILINE)
    if any(isinstance(node, ast.With) for node in ast.parse(code).body):
        # It opens a connection at once: only what it imports is run here.
        code = "\n".join(re.findall(r"^(?:from|import) .*", code, re.MULTILINE))
    names: dict[str, Any] = {
        **WELL_KNOWN,
        "task": lambda handle: handle,
        "run": lambda: None,
    }
    with DAG("docs", schedule=None):

        @airflow_task
        def scenes() -> list[dict[str, Any]]:
            return []

        names["batch"] = RunqyBatchOperator(
            task_id="batch", runqy_queue="render", payloads=[]
        )
        names["scenes"] = type("Scenes", (), {"output": scenes()})
        exec(compile(code, str(block), "exec"), names)  # noqa: S102 - our own docs


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_docs_python_block_calls_have_valid_arguments(block: Any) -> None:
    tree = ast.parse(block.code)
    known = {**WELL_KNOWN, **_imported(tree)}
    instances = dict(_instances(tree, known))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        called = _called(call.func, known, instances)
        if called is not None:
            given = {word.arg for word in call.keywords if word.arg}
            assert given <= _parameters(called), ast.unparse(call)


def _imported(tree: ast.Module) -> dict[str, Any]:
    """Return what a block imports from our packages, by name."""
    return {
        name.asname or name.name: getattr(
            importlib.import_module(node.module or ""), name.name
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).partition(".")[0] in OURS
        for name in node.names
    }


def _instances(tree: ast.Module, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names that hold an object of one of our classes, with the class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem):
            target, value = node.optional_vars, node.context_expr
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        else:
            continue
        if (
            isinstance(target, ast.Name)
            and isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and inspect.isclass(known.get(value.func.id))
        ):
            yield target.id, known[value.func.id]


def _called(
    function: ast.expr, known: dict[str, Any], instances: dict[str, Any]
) -> Callable[..., Any] | None:
    """Return what a call calls, if that is ours; a missing method is an error."""
    if isinstance(function, ast.Name):
        found = known.get(function.id)
        return found if callable(found) else None
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value
    if isinstance(owner, ast.Name) and owner.id in WELL_KNOWN:
        operator: Callable[..., Any] = WELL_KNOWN[owner.id]
        return operator if function.attr == "partial" else None
    if isinstance(owner, ast.Name) and owner.id in instances:
        cls = instances[owner.id]
        if issubclass(cls, BaseOperator):  # its output and its links
            return None
        method: Callable[..., Any] = getattr(cls, function.attr)
        return method
    return None


def _parameters(called: Callable[..., Any]) -> set[str]:
    if inspect.isclass(called) and issubclass(called, Exception):
        return set()
    names = set(inspect.signature(called).parameters)
    if inspect.isclass(called) and issubclass(called, BaseOperator):
        for parent in called.__mro__:
            names |= set(inspect.signature(parent).parameters)
    return names
