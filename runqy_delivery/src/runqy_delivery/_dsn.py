# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Parse the URL of a database or a broker (a DSN) without ever showing its password.

Passwords are often pasted into a URL without percent-encoding. The login is therefore
taken to end at the last ``@`` before the options, whatever characters precede it.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass, field

from runqy_delivery.errors import DeliveryImpossible

MAX_PORT = 65535

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]*)://(.*)", re.DOTALL)

#: A DSN after its scheme, where the end of the login is unambiguous: the user may hold
#: an ``@`` if a password follows, and the values of options may hold one. SQLAlchemy
#: parses a login by the same rule.
_UNAMBIGUOUS = re.compile(
    r"(?:(?P<user>[^:/?]*)(?::(?P<password>[^@?]*(?:\?[^@=]*)?))?@)?"
    r"(?P<rest>[^@?]*(?:\?(?:[^=@]*=.*|[^@]*))?)",
    re.DOTALL,
)
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")

#: Characters that a login keeps when it is quoted: ``%``, because it may be quoted
#: already, and characters without a meaning in a URL.
_SAFE_IN_LOGIN = "%!$&'()*+,;=~"


@dataclass(frozen=True)
class Dsn:
    """A DSN, split into its parts.

    Attributes:
        scheme: For example ``postgresql`` or ``amqp``.
        hosts: Host and port; a comma-separated list if the client supports several.
        path: From the slash after the hosts up to the options, as it was written.
        options: From the question mark to the end, as it was written; may hold secrets.
        user: The user as it was written, escapes included; None without a login.
        password: The password as it was written, escapes included; None without one.
    """

    scheme: str
    hosts: str
    path: str
    options: str = field(default="", repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the parts that hold no secret: scheme, host, port and path."""
        return f"{self.scheme}://{self.hosts}{self.path}"

    @property
    def url(self) -> str:
        """The whole URL, with a login that any URL parser reads correctly; a secret."""
        if self.user is None:
            return f"{self}{self.options}"
        login = urllib.parse.quote(self.user, _SAFE_IN_LOGIN)
        if self.password is not None:
            login += f":{urllib.parse.quote(self.password, _SAFE_IN_LOGIN)}"
        return f"{self.scheme}://{login}@{self.hosts}{self.path}{self.options}"

    @property
    def login(self) -> dict[str, str]:
        """``user`` and ``password`` without escapes, as far as the DSN has them."""
        given = {"user": self.user, "password": self.password}
        return {
            name: urllib.parse.unquote(value)
            for name, value in given.items()
            if value is not None
        }


def dsn_from_environment(variable: str, sink: str, server: str) -> Dsn:
    """Read the DSN of a sink from the environment (a runqy vault).

    Args:
        variable: Name of the environment variable.
        sink: Where the result goes, for the error message.
        server: What the DSN leads to, for the error message.

    Raises:
        DeliveryImpossible: The variable is not set, or its value is not a valid URL;
            the message does not repeat the URL.
    """
    url = os.environ.get(variable)
    if not url:
        raise DeliveryImpossible(
            f"The result goes to {sink}, but {variable} is not set: put the {server}'s "
            "URL into a vault of this queue."
        )
    return parse_dsn(url, variable)


def parse_dsn(url: str, variable: str) -> Dsn:
    """Split a DSN into its parts.

    Args:
        url: The DSN.
        variable: Name of the environment variable that holds it, for error messages.

    Raises:
        DeliveryImpossible: It is not a valid URL, or the end of its login is ambiguous;
            the message does not repeat the URL.
    """
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise invalid_dsn(variable)
    scheme, text = match.groups()
    if scheme.partition("+")[0] == "sqlite":
        user, password, rest = None, None, text  # a file path, which may hold an @
    else:
        user, password, rest = _split_login(text, variable)
    before_options, mark, options = rest.partition("?")
    hosts, slash, path = before_options.partition("/")
    for host in hosts.split(","):
        host_match = _HOST.fullmatch(host)
        if host_match is None or int(host_match[1] or 0) > MAX_PORT:
            raise invalid_dsn(variable)
    return Dsn(scheme, hosts, slash + path, mark + options, user, password)


def invalid_dsn(
    variable: str, reason: str = "is not a valid URL"
) -> DeliveryImpossible:
    """Return the error for a DSN that cannot be used; its message omits the DSN.

    Args:
        variable: Name of the environment variable that holds the DSN.
        reason: What is wrong with it: the message is ``variable``, then this.
    """
    return DeliveryImpossible(
        f"{variable} {reason}. Write it as scheme://user:password@host:port/name, and "
        "percent-encode reserved characters of the password (@ as %40, / as %2F, ? as "
        "%3F, : as %3A)."
    )


def _split_login(text: str, variable: str) -> tuple[str | None, str | None, str]:
    """Return user, password and the rest of a DSN after its scheme."""
    match = _UNAMBIGUOUS.fullmatch(text)
    if match is not None:
        return match["user"], match["password"], match["rest"]
    login, _, rest = text.rpartition("@")
    if "?" in login:
        # Ambiguous: either the password holds a question mark, or an option an @.
        raise invalid_dsn(variable)
    user, colon, password = login.partition(":")
    return user, password if colon else None, rest
