# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Make foreign text safe for logs and for Airflow's database."""

from __future__ import annotations

import json
import re
from typing import Any

#: What PostgreSQL's JSON refuses: the character zero, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

#: The same character in JSON text; after an escaped backslash it is plain text.
_ESCAPED_ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

#: Replaces a character that cannot be stored.
REPLACEMENT = "\ufffd"


def one_line(text: str, longest: int) -> str:
    """Return a text as one line without control characters, cut to a length.

    A line break could fake a line of a log, an escape sequence a whole screen.
    """
    shown = "".join(char if char.isprintable() else " " for char in text[:longest])
    return " ".join(shown.split())


def storable(text: str) -> str:
    """Return a text that Airflow's database can store; line breaks stay."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def is_storable(value: Any) -> bool:
    """Return whether Airflow's database can store a JSON value."""
    text = json.dumps(value, ensure_ascii=False)
    return not _ESCAPED_ZERO.search(text) and not _UNSTORABLE.search(text)
