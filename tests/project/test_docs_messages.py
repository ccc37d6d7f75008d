"""Every message that troubleshooting.md quotes is in the source code."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.doc_blocks import ROOT, read_page

#: Messages of Airflow itself.
NOT_OURS = {
    "Bad Request",
    "'ds' is undefined",
    "Could not load provider module airflow_provider_runqy",
}

#: Stands for the part of a message that differs from case to case.
GAP = "…"

SOURCES = ("runqy_provider", "runqy_delivery/src", "runqy_sandbox/src")


def quoted() -> list[str]:
    """Return the messages in the first column of the tables, and in the text."""
    page = read_page("docs/troubleshooting.md")
    cells = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    text = re.findall(r"`(This URL [^`]+)`", page)
    return [" ".join(each.split()) for each in [*cells, *text]]


@cache
def literals() -> str:
    """Return all texts of the source code, with a gap for each value in them."""
    texts = []
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    texts.append(_text(node))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(re.sub(r"%[sr]|%\.1f", GAP, node.value))
    return "\n".join(texts)


def _text(node: ast.JoinedStr) -> str:
    return "".join(
        part.value
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        else GAP
        for part in node.values
    )


def test_docs_troubleshooting_quotes_messages() -> None:
    assert len(quoted()) > 40


@pytest.mark.parametrize("message", sorted(set(quoted()) - NOT_OURS))
def test_docs_troubleshooting_message_is_in_the_code(message: str) -> None:
    parts = [part.strip() for part in message.split(GAP)]
    fixed = [part for part in parts if part]

    assert len("".join(fixed)) > 10
    for part in fixed:
        assert part in literals()
