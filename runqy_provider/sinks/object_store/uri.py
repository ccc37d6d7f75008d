# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How names stand in URIs and in the addresses of results: quoted once."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from runqy_provider.errors import Misconfigured

#: What would end a URI's path, or the URI where several stand with blanks between, or
#: be taken for a quoted character; and what cannot be seen, nor kept in XCom. All else
#: stays as it is, so that names are readable.
_SPECIAL = re.compile(r"[\s%?#\x00-\x1f\x7f]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def quoted(name: str) -> str:
    """Return a bucket's, folder's or key's name as it stands in a URI."""
    return _SPECIAL.sub(lambda found: quote(found[0], safe=""), name)


def unquoted(text: str) -> str:
    """Return the name that a part of a URI means.

    Raises:
        Misconfigured: It means no text.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise Misconfigured(
            f"{text!r} is no name in a URI: what is quoted there with % is no UTF-8."
        ) from error


def check_name(name: str) -> None:
    """Refuse a prefix or folder that not all stores, signed URLs and logs can carry.

    Raises:
        Misconfigured: It has a control character, half a surrogate pair, or a part
            that means another folder.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Misconfigured(f"{name!r} is no name: it is no UTF-8.") from error
    if _CONTROL.search(name) or {".", ".."}.intersection(name.split("/")):
        raise Misconfigured(
            f"{name!r} is no name for where results go: it has a control character, or "
            "a part '.' or '..'."
        )


def address_of(url: str, key: str) -> str:
    """Return the address of an object: a store's ``url``, and the key."""
    return f"{url}/{quoted(key)}"


def key_at(url: str, where: str) -> str | None:
    """Return the key of an address; None where it is not in the store with that URL.

    Raises:
        Misconfigured: The address means no key.
    """
    rest = where.removeprefix(f"{url}/")
    return None if rest == where else unquoted(rest)
