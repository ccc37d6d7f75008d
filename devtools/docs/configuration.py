# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: the tables of the configuration, from the provider's declaration.

A page has a line ``<!-- table: connection -->`` or ``<!-- table: options -->``: the
table replaces it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runqy_provider.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MARK = re.compile(r"<!-- table: (\w+) -->")

#: Airflow's own fields of a connection that the form shows, with what they are for.
_STANDARD_FIELDS = {
    "host": "The URL of the runqy server. Without a port and a scheme: port 3000.",
    "port": "The server's port. Airflow's Test button needs it.",
    "password": "The API key: a key with the client role, which enqueues jobs.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of tables in a page; mkdocs calls this for each page.

    Raises:
        KeyError: A mark names a table that does not exist.
    """
    return _MARK.sub(lambda mark: TABLES[mark[1]](), markdown)


def connection_table() -> str:
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


def options_table() -> str:
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


TABLES: dict[str, Callable[[], str]] = {
    "connection": connection_table,
    "options": options_table,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(value: object) -> str:
    return "" if value is None else f"`{value}`"


def _cell(text: str) -> str:
    """Return a text as it can stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
