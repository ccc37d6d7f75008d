# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make docs-tables``: write the parts of the docs that are generated from the code.

Such a part is between a mark, such as ``<!-- generated: connection -->``, and ``<!--
end -->``. It is committed, so that it can be read without a build. The mark of a part
of the Python API names classes, functions and modules. The site, of which this module
is a hook, has their whole docstrings instead.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger

from devtools.airflow_versions import VERSIONS
from runqy_provider.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs/reference" / f"{name}.md" for name in ("configuration", "api")),
    ROOT / "docs/reference/airflow-versions.md",
)

_PART = re.compile(
    r"(?P<mark><!-- generated: (?P<kind>\w+)(?P<names>[^>]*) -->\n)"
    r"(?P<text>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)

#: Airflow's own fields of a connection that the form shows, with what they are for.
_STANDARD_FIELDS = {
    "host": "The URL of the runqy server. Without a port and a scheme: port 3000.",
    "port": "The server's port. Airflow's Test button needs it.",
    "password": "The API key: a key with the client role, which enqueues jobs.",
}


def generate(markdown: str) -> str:
    """Return a page with its generated parts as the code has them now.

    Raises:
        KeyError: A mark names a part that does not exist.
    """
    return _PART.sub(
        lambda part: (
            f"{part['mark']}\n{PARTS[part['kind']](part['names'].split())}\n\n{part['end']}"
        ),
        markdown,
    )


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put whole docstrings in place of short ones; mkdocs calls this for each page."""
    return _PART.sub(
        lambda part: (
            _directives(part["names"].split())
            if part["kind"] == "api"
            else part["text"]
        ),
        markdown,
    )


def connection_table(_: list[str]) -> str:
    """Return a table of the fields of a connection, in the form's order."""
    declared = get_provider_info()["connection-types"][0]
    labels = declared["ui-field-behaviour"]["relabeling"]
    standard = (
        (f"`{name}`", labels[name], "", text) for name, text in _STANDARD_FIELDS.items()
    )
    extra = (
        (
            f"`{name}`",
            _cell(field["label"]),
            _code(field["schema"].get("default")),
            _cell(field["description"]),
        )
        for name, field in declared["conn-fields"].items()
    )
    return _table(("field", "label", "default", "meaning"), (*standard, *extra))


def options_table(_: list[str]) -> str:
    """Return a table of the options in the section ``[runqy]``."""
    options = get_provider_info()["config"]["runqy"]["options"]
    return _table(
        ("option", "type", "default", "meaning"),
        (
            (
                f"`{name}`",
                option["type"],
                _code(option["default"]),
                _cell(option["description"]),
            )
            for name, option in options.items()
        ),
    )


def airflow_table(_: list[str]) -> str:
    """Return a table of the tested versions of Airflow, the newest minor first."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for version in VERSIONS:
        minor = ".".join(version.name.split(".")[:2])
        name = version.name + (" (pre-release)" if version.may_fail else "")
        rows.setdefault((minor, ", ".join(version.pythons)), []).append(name)
    return _table(
        ("Airflow", "Python"),
        [(", ".join(names), pythons) for (_, pythons), names in [*rows.items()][::-1]],
    )


def api_list(paths: list[str]) -> str:
    """Return a list of classes, functions and modules, each with its first sentence."""
    return "\n".join(line for path in paths for line in _entries(path))


PARTS: dict[str, Callable[[list[str]], str]] = {
    "connection": connection_table,
    "options": options_table,
    "airflow": airflow_table,
    "api": api_list,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(value: object) -> str:
    return "" if value is None else f"`{value}`"


def _cell(text: str) -> str:
    """Return a text as it can stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _entries(path: str) -> Iterator[str]:
    found = _find(path)
    if inspect.ismodule(found):
        for name, member in _own_members(found):
            yield _entry("", f"{path}.{name}", member)
        return
    yield _entry("", path, found)
    if not inspect.isclass(found) or issubclass(found, (BaseOperator, BaseTrigger)):
        return
    for name, member in vars(found).items():
        if not name.startswith("_") and _is_documented(member):
            yield _entry("    ", name, member)


def _entry(indent: str, name: str, found: Any) -> str:
    text = inspect.getdoc(found) or ""
    # A first sentence may be longer than its line.
    first = " ".join(text.partition("\n\n")[0].split()).replace("``", "`")
    return f"{indent}- `{name}{_signature(found)}`: {first}"


def _signature(found: Any) -> str:
    """Return the arguments of a function or class, without types and ``self``."""
    function = getattr(found, "__func__", found)
    if not (inspect.isfunction(function) or inspect.isclass(function)):
        return ""
    if inspect.isclass(function) and issubclass(function, Exception):
        return ""
    signature = inspect.signature(function)
    without_types = (
        each.replace(annotation=inspect.Parameter.empty)
        for name, each in signature.parameters.items()
        if name not in {"self", "cls"}
    )
    return str(inspect.Signature(list(without_types)))


def _is_documented(member: Any) -> bool:
    function = getattr(member, "__func__", member)
    return inspect.isfunction(function) or isinstance(member, property)


def _own_members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public classes, functions and fixtures that a module defines."""
    for name, member in vars(module).items():
        if (
            not name.startswith("_")
            and callable(member)
            and getattr(member, "__module__", "") == module.__name__
        ):
            yield name, member


def _find(path: str) -> Any:
    """Return the class, function or module under a path."""
    owner, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(owner), name, None)
    return importlib.import_module(path) if found is None else found


def _directives(paths: list[str]) -> str:
    """Return what mkdocstrings renders as the documentation of some paths."""
    return "\n\n".join(_directive(path) for path in paths)


def _directive(path: str) -> str:
    found = _find(path)
    options = []
    if inspect.ismodule(found):
        options = ["show_root_heading: false", "show_root_toc_entry: false"]
    elif ":param " in (inspect.getdoc(found) or ""):
        options = ["docstring_style: sphinx"]
    if inspect.isclass(found) and issubclass(found, (BaseOperator, BaseTrigger)):
        options.append("members: false")
    lines = [f"::: {path}", *(["    options:"] if options else [])]
    return "\n".join([*lines, *(f"      {each}" for each in options)])


def main() -> None:
    """Write the generated parts of all pages."""
    for page in PAGES:
        page.write_text(generate(page.read_text()))


if __name__ == "__main__":
    main()
