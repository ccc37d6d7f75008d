"""Every module can be imported, on every version of Airflow that is supported."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import tokenize
import warnings
from pathlib import Path

import pytest

import runqy_provider

#: A module that runs when it is imported.
PROGRAMS = ("__main__",)

MODULES = [
    module.name
    for module in pkgutil.walk_packages(runqy_provider.__path__, "runqy_provider.")
    if module.name.rpartition(".")[2] not in PROGRAMS
]


@pytest.mark.parametrize("name", MODULES)
def test_module_can_be_imported(name: str) -> None:
    with warnings.catch_warnings():
        # Some modules say that they are deprecated, as do some of an older Airflow's.
        warnings.simplefilter("ignore")
        importlib.import_module(name)


def test_modules_are_all_found() -> None:
    assert len(MODULES) > 100


#: The longest line of a source, and a piece of a message that is a line's scrap.
WIDTH, SCRAP = 88, 24


def test_module_messages_are_not_broken_after_a_word() -> None:
    """A text that was moved by a tool, and not filled again, has lines of one word."""
    root = Path(runqy_provider.__file__).parents[1]
    sources = [
        path
        for folder in ("runqy_provider", "runqy_delivery/src", "runqy_sandbox/src")
        for path in (root / folder).rglob("*.py")
    ]
    scraps = [
        f"{path.relative_to(root)}:{piece.start[0]}: {piece.string}"
        for path in sources
        for piece, following in _adjacent_texts(path)
        if len(piece.string) < SCRAP and not piece.string.endswith('\\n"')
        if len(piece.line) + len(following.string.split(" ")[0]) <= WIDTH
    ]

    assert len(sources) > 150
    assert scraps == []


def _adjacent_texts(
    path: Path,
) -> list[tuple[tokenize.TokenInfo, tokenize.TokenInfo]]:
    """Return each text that another one follows on the next line, with that."""
    with path.open("rb") as file:
        tokens = [
            token
            for token in tokenize.tokenize(file.readline)
            if token.type not in (tokenize.NL, tokenize.COMMENT)
        ]
    return [
        (one, other)
        for one, other in itertools.pairwise(tokens)
        if one.type == other.type == tokenize.STRING
    ]
