"""URLs of databases and brokers: the login is found, and never shown."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from runqy_delivery import DeliveryUndeliverable
from runqy_delivery._dsn import parse_dsn

#: URL, the parts that are shown, user and password without escapes.
DSNS = [
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


@pytest.mark.parametrize(("url", "shown", "login"), DSNS, ids=[row[0] for row in DSNS])
def test_parse_dsn_login_is_found_and_never_shown(
    url: str, shown: str, login: tuple[str | None, str | None]
) -> None:
    dsn = parse_dsn(url, "VARIABLE")

    assert str(dsn) == shown
    assert (dsn.login.get("user"), dsn.login.get("password")) == login
    if login[0] is not None and "," not in shown:
        parts = urlsplit(dsn.url)  # which expects percent-encoded passwords
        found = (parts.username, parts.password)
        assert tuple(text and unquote(text) for text in found) == login
        assert dsn.url.endswith(dsn.options)
    for text in ("p@q", "password=", "name="):
        assert text not in repr(dsn)


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
def test_parse_dsn_invalid_url_is_not_repeated(url: str) -> None:
    with pytest.raises(
        DeliveryUndeliverable, match="VARIABLE is not a valid URL"
    ) as caught:
        parse_dsn(url, "VARIABLE")
    assert "SEC" not in str(caught.value)
    assert "%40" in str(caught.value)
