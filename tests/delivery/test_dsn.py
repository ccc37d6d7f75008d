"""The URLs of databases and brokers: what of them is shown, and where logins end."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from runqy_delivery import DeliveryUndeliverable
from runqy_delivery._dsn import read_address

#: URL, what is shown, the login without escapes.
READ = [
    ("db://u:p@h:5/n", "db://h:5/n", ("u", "p")),
    ("db://u:p%40%2Fq@h/n", "db://h/n", ("u", "p@/q")),
    ("db://u:p/q@h/n", "db://h/n", ("u", "p/q")),
    ("db://u:p@q@h/n", "db://h/n", ("u", "p@q")),
    ("db://u:7/p@q@h/n", "db://h/n", ("u", "7/p@q")),
    ("db://u:p?q@h/n", "db://h/n", ("u", "p?q")),
    ("db://u:p#q[r:s@h/n", "db://h/n", ("u", "p#q[r:s")),
    ("db://u:50%@h/n", "db://h/n", ("u", "50%")),
    ("db://u/v:p@h/n", "db://h/n", ("u/v", "p")),
    ("db://me@server:p@h/n", "db://h/n", ("me@server", "p")),
    ("db://u@h/n", "db://h/n", ("u", None)),
    ("db://u:@h/n", "db://h/n", ("u", "")),
    ("db://h", "db://h", (None, None)),
    ("db:///n", "db:///n", (None, None)),
    ("db://h:5/n?user=u&password=p@q", "db://h:5/n", (None, None)),
    ("db://u:p@h/n?name=a@b", "db://h/n", ("u", "p")),
    ("db://u:p@[::1]:5,h:6/n", "db://[::1]:5,h:6/n", ("u", "p")),
    ("sqlite:////data/a@b:c.db", "sqlite:////data/a@b:c.db", (None, None)),
]


@pytest.mark.parametrize(("url", "shown", "login"), READ, ids=[row[0] for row in READ])
def test_the_login_is_found_and_never_shown(
    url: str, shown: str, login: tuple[str | None, str | None]
) -> None:
    address = read_address(url, "VARIABLE")

    assert str(address) == shown
    assert (address.login.get("user"), address.login.get("password")) == login
    if login[0] is not None and "," not in shown:
        parts = urlsplit(address.url)  # which knows nothing of pasted passwords
        found = (parts.username, parts.password)
        assert tuple(text and unquote(text) for text in found) == login
        assert address.url.endswith(address.options)
    for text in ("p@q", "password=", "name="):
        assert text not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "SECRET",
        "u:SECRET@h/n",
        "db://u:SECRET",
        "db://u:SECRET/n",
        "db://u:p@h:SECRET/n",
        "db://u:p@h:65536/n",
        "db://u:p@[h/n",
        "db://u:SEC?RET@x@h/n",
        "db://u:SEC@RET?x@h/n",
        "db://u:SECRET?x=y@h/n",
    ],
)
def test_what_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(DeliveryUndeliverable, match="VARIABLE cannot be read") as found:
        read_address(url, "VARIABLE")
    assert "SEC" not in str(found.value)
    assert "%40" in str(found.value)
