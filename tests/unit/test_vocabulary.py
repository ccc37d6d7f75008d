"""Names use the glossary of docs/explanation/architecture.md."""

from __future__ import annotations

import io
import itertools
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Nouns that earlier versions used for things that the field has a term for.
OLD_NOUNS = frozenset(
    [
        "awaited",
        "bell",
        "bells",
        "box",
        "boxes",
        "circumstances",
        "deed",
        "deeds",
        "door",
        "doors",
        "holder",
        "holders",
        "letter",
        "letters",
        "lookout",
        "news",
        "parcel",
        "parcels",
        "patience",
        "place",
        "places",
        "sight",
        "sights",
        "stranger",
        "strangers",
        "teller",
        "tellers",
        "ticket",
        "tickets",
        "trouble",
        "troubles",
        "vigil",
        "words",
    ]
)

#: Whole names that are as old; as a part of another name, "access" is the field's word.
OLD_NAMES = frozenset({"access", "Access", "get_access"})

#: The field's term for a queue of messages that could not be handled.
DEAD_LETTER = re.compile(r"dead_?letter", re.IGNORECASE)

#: Modules that keep a documented name for one more release.
DEPRECATED = frozenset({"hooks/access.py", "hooks/submission.py"})

FOLDERS = ("runqy_provider", "runqy_delivery/src", "runqy_sandbox/src", "devtools")
MODULES = [
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if f"{path.parent.name}/{path.name}" not in DEPRECATED
]


def parts_of(name: str) -> set[str]:
    """Return the words of an identifier, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return set(spaced.lower().split("_"))


def is_old(name: str) -> bool:
    """Return whether an identifier has an old noun in it."""
    parts = parts_of(DEAD_LETTER.sub("", name))
    return name in OLD_NAMES or bool(parts & OLD_NOUNS)


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(ROOT)) if path else ""
)
def test_module_identifiers_are_in_the_glossary(path: Path) -> None:
    read = io.StringIO(path.read_text()).readline
    # Attributes and arguments of libraries have their own names: ``os.access``, and
    # ``box`` of rich's tables.
    own = [
        token
        for before, token in itertools.pairwise(tokenize.generate_tokens(read))
        if token.type == tokenize.NAME
        and before.string != "."
        and not ("Table(" in token.line and token.string == "box")
    ]

    old = {(token.string, token.start[0]) for token in own if is_old(token.string)}

    assert not old
    assert not is_old(path.stem)
