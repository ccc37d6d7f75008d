# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The URL of a database or a broker, taken apart so that its login is never shown.

Passwords are often pasted in as they are, with characters that mean something in a
URL. The last ``@`` before the options ends the login, whatever stands in front of it.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field

from runqy_delivery.errors import DeliveryImpossible

HIGHEST_PORT = 65535

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]*)://(.*)", re.DOTALL)

#: A login that can be told from what follows: a name that may hold an ``@`` if a
#: password comes after it, and options that may hold one in their values. It is read
#: as SQLAlchemy does.
_PLAIN = re.compile(
    r"(?:(?P<user>[^:/?]*)(?::(?P<password>[^@?]*(?:\?[^@=]*)?))?@)?"
    r"(?P<rest>[^@?]*(?:\?(?:[^=@]*=.*|[^@]*))?)",
    re.DOTALL,
)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")

#: What may stand in a login as it is: escapes that are there already, and what means
#: nothing in a URL.
_HARMLESS = "%!$&'()*+,;=~"


@dataclass(frozen=True)
class Address:
    """A URL in its parts.

    Attributes:
        scheme: Such as ``postgresql`` or ``amqp``.
        hosts: Host and port; several with commas, where the client knows those.
        path: From the slash after the hosts on, as it was written.
        options: From the question mark on, as it was written; may hold secrets.
        user: As it was written, with its escapes; None where there is no login.
        password: Likewise.
    """

    scheme: str
    hosts: str
    path: str
    options: str = field(default="", repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return what may be shown: scheme, host, port and path."""
        return f"{self.scheme}://{self.hosts}{self.path}"

    @property
    def url(self) -> str:
        """The whole URL, with a login that every parser finds the end of; a secret."""
        if self.user is None:
            return f"{self}{self.options}"
        login = urllib.parse.quote(self.user, _HARMLESS)
        if self.password is not None:
            login += f":{urllib.parse.quote(self.password, _HARMLESS)}"
        return f"{self.scheme}://{login}@{self.hosts}{self.path}{self.options}"

    @property
    def login(self) -> dict[str, str]:
        """``user`` and ``password``, without escapes, as far as they are given."""
        given = {"user": self.user, "password": self.password}
        return {
            name: urllib.parse.unquote(value)
            for name, value in given.items()
            if value is not None
        }


def read_address(url: str, variable: str) -> Address:
    """Take a URL apart.

    Args:
        url: The URL, as the environment has it.
        variable: The environment's variable, for the message.

    Raises:
        DeliveryImpossible: It is no URL, or does not tell where its login ends; the
            message does not repeat it.
    """
    whole = _SCHEME.fullmatch(url)
    if whole is None:
        raise unusable(variable)
    scheme, text = whole.groups()
    if scheme.partition("+")[0] == "sqlite":
        user, password, rest = None, None, text  # a path, which may hold an @
    else:
        user, password, rest = _split(text, variable)
    before, mark, options = rest.partition("?")
    hosts, slash, path = before.partition("/")
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None or int(found[1] or 0) > HIGHEST_PORT:
            raise unusable(variable)
    return Address(scheme, hosts, slash + path, mark + options, user, password)


def unusable(variable: str, why: str = "cannot be read as a URL") -> DeliveryImpossible:
    """Return the error for an address that is no good, without the address."""
    return DeliveryImpossible(
        f"{variable} {why}. It has the form scheme://user:password@host:port/name; "
        "write characters of the password that mean something in a URL with a percent "
        "sign (@ as %40, / as %2F, ? as %3F, : as %3A)."
    )


def _split(text: str, variable: str) -> tuple[str | None, str | None, str]:
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return plain["user"], plain["password"], plain["rest"]
    login, _, rest = text.rpartition("@")
    if "?" in login:
        # Either the password has a question mark, or an option has an @.
        raise unusable(variable)
    user, colon, password = login.partition(":")
    return user, password if colon else None, rest
