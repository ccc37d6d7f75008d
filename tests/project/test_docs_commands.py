"""The commands of the docs are valid: programs, options, connections, variables."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import tomllib
from airflow.cli.cli_parser import get_parser
from airflow.sdk import Connection
from packaging.requirements import Requirement

from devtools.benchmarks import model
from runqy_provider.connections import RunqyConnection
from runqy_provider.get_provider_info import get_provider_info
from runqy_provider.sinks.registry import sink_from_uri
from tests.support.doc_blocks import (
    PAGES,
    PLACEHOLDER,
    ROOT,
    Block,
    all_blocks,
    blocks_of,
    commands_of,
    read_page,
    script_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

INFO = get_provider_info()
FIELDS = set(INFO["connection-types"][0]["conn-fields"])
PROJECTS = {
    "airflow-provider-runqy": "pyproject.toml",
    "runqy-delivery": "runqy_delivery/pyproject.toml",
    "runqy-sandbox": "runqy_sandbox/pyproject.toml",
}

#: Words that are followed by no option of ours.
OTHER_PROGRAMS = {"git", "cd", "curl", ".", "kubectl", "mkdir", "python3"}


@pytest.mark.parametrize("block", all_blocks("console", "shell"), ids=str)
def test_docs_commands_are_valid(block: Block) -> None:
    subprocess.run(["/bin/bash", "-n"], input=script_of(block), text=True, check=True)
    commands = commands_of(block)
    assert commands
    for command in commands:
        program, *words = command
        if program not in OTHER_PROGRAMS:
            CHECKS[program](words)


@pytest.mark.parametrize("page", PAGES)
def test_docs_commands_in_text_are_valid(page: str) -> None:
    for command in re.findall(
        r"`((?:make|python -m|pip install) [^`\n]+)`", read_page(page)
    ):
        program, *words = command.replace("'", "").split()
        CHECKS[program](words)


def test_docs_operations_quotes_what_the_model_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = "docs/operations.md"
    [block] = [b for b in blocks_of(page) if "benchmarks.model" in b.code]

    model.main([])

    assert block.code.partition("\n")[2] == capsys.readouterr().out


def _check_make(words: list[str]) -> None:
    targets = re.findall(
        r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert {word for word in words if "=" not in word} <= set(targets)


def _check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        if word.startswith("."):
            assert (ROOT / word / "pyproject.toml").is_file()
            continue
        requirement = Requirement(word)
        if requirement.name in PROJECTS:
            path = ROOT / PROJECTS[requirement.name]
            project = tomllib.loads(path.read_text())["project"]
            extras = project.get("optional-dependencies", {})
            assert requirement.extras <= set(extras)


def _check_python(words: list[str]) -> None:
    assert words[0] == "-m"
    module, *arguments = words[1:]
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__")
    if module.startswith("devtools.") or not arguments:
        return
    command = [] if arguments[0].startswith("-") else arguments[:1]
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", _help(module, *command)))


@cache
def _help(module: str, *command: str) -> str:
    """Return the help of a command; one that does not exist is an error."""
    program = importlib.import_module(f"{module}.__main__")
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
        program.main([*command, "--help"])
    assert not end.value.code
    return output.getvalue()


def _check_airflow(words: list[str]) -> None:
    options = get_parser().parse_args(words)
    if words[:2] != ["connections", "add"]:
        return
    connection = Connection(
        conn_id=options.conn_id,
        conn_type=options.conn_type,
        host=options.conn_host,
        port=None if options.conn_port is None else int(options.conn_port),
        extra=options.conn_extra,
    )
    _check_connection(connection)


def _check_connection(connection: Connection) -> None:
    """Check a connection; of ours, all fields are read as a task reads them."""
    extra = json.loads(connection.extra or "{}")
    if connection.conn_type != "runqy":
        return
    assert set(extra) <= FIELDS
    # Airflow's test of a connection needs it.
    assert connection.port
    secret = {
        name: PLACEHOLDER.sub("0123456789abcdef" * 2, value)
        for name, value in extra.items()
    }
    connection.extra = json.dumps(secret)
    settings = RunqyConnection.from_connection(connection)
    assert sink_from_uri(settings.sink)
    if "callback_secret" in extra:
        assert PLACEHOLDER.fullmatch(extra["callback_secret"])


def _check_export(words: list[str]) -> None:
    for word in words:
        name, _, value = word.partition("=")
        if name.startswith("AIRFLOW_CONN_"):
            fields: dict[str, Any] = json.loads(value)
            extra = json.dumps(fields.pop("extra", {}))
            fields["password"] = PLACEHOLDER.sub("key", fields["password"])
            _check_connection(Connection(conn_id="x", extra=extra, **fields))
        elif name.startswith("AIRFLOW__RUNQY__"):
            option = name.removeprefix("AIRFLOW__RUNQY__").lower()
            assert option in INFO["config"]["runqy"]["options"]
        elif name.startswith("RUNQY_"):
            source = (ROOT / "runqy_provider/receiver/__main__.py").read_text()
            assert f'"{name}"' in source
        else:
            assert name == "AIRFLOW_HOME" or name.startswith("AIRFLOW__")


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": _check_make,
    "pip": _check_pip,
    "python": _check_python,
    "airflow": _check_airflow,
    "export": _check_export,
}
