"""The fields of connections, read and checked."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import Misconfigured
from runqy_provider.receiver.__main__ import connection_from, main
from runqy_provider.redis_connection import RedisConnection

NEW_SECRET, OLD_SECRET = (
    "new-secret-of-ours-of-30-chars",
    "old-secret-of-ours-of-30-chars",
)
SIGNING, OLD_SIGNING = "whsec_" + "A" * 32, "whsec_" + "B" * 32


def connection(**fields: Any) -> Any:
    """Return what Airflow returns for a connection with these fields."""
    names = ("host", "port", "login", "password", "schema", "extra", "conn_type")
    given = {"conn_id": "c", **dict.fromkeys(names), **fields}
    if isinstance(given["extra"], dict):
        given["extra"] = json.dumps(given["extra"])
    return SimpleNamespace(**given)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "http://h:3000"}, "http://h:3000"),
        ({"host": "https://h/"}, "https://h"),
        ({"host": "https://h/runqy/"}, "https://h/runqy"),
        ({"host": "http://h", "port": 80}, "http://h:80"),
        ({"host": "http://h:3000", "port": 3000}, "http://h:3000"),
        ({"host": "https://h/runqy", "port": 443}, "https://h:443/runqy"),
        ({"host": "h"}, "http://h:3000"),
        ({"host": "h:80"}, "http://h:80"),
        ({"host": "h", "port": 81, "schema": "https"}, "https://h:81"),
    ],
)
def test_connection_server_url_is_read_from_host_schema_and_port(
    fields: dict[str, Any], url: str
) -> None:
    assert RunqyConnection.from_connection(connection(**fields)).server_url == url


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "http://h:3000", "port": 80}, "has two ports: 3000"),
        ({"host": "http://h:90000"}, "is not valid"),
    ],
)
def test_connection_server_port_not_valid_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misconfigured, match=message):
        RunqyConnection.from_connection(connection(**fields))


def test_connection_without_fields_has_airflow_defaults() -> None:
    settings = RunqyConnection.from_connection(connection(host="h"))

    assert (settings.sink, settings.redis_conn_id, settings.aws_conn_id) == (
        "webhook",
        "redis_default",
        "aws_default",
    )


def test_connection_secrets_can_be_rotated_and_are_hidden_in_repr() -> None:
    extra = {"callback_secret": f"{NEW_SECRET} {OLD_SECRET}"}
    settings = RunqyConnection.from_connection(
        connection(host="h", password="key!", extra=extra)
    )

    assert settings.callback_secrets == (NEW_SECRET, OLD_SECRET)
    assert "secret-of-ours" not in repr(settings)
    assert "key!" not in repr(settings)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"host": " "},
        {"host": "ftp://h"},
        {"host": "http://"},
        {"host": "h", "extra": "no json"},
        {"host": "h", "extra": {"callback_secret": "s" * 23}},
        {"host": "h", "extra": {"callback_secret": f"{NEW_SECRET} short"}},
        {"host": "h", "extra": {"callback_url": "h/runqy"}},
        {"host": "h", "extra": {"callback_url": "https://h/runqy?x=1"}},
        {"host": "h", "password": "key-one\nkey-two"},
        {"host": "h", "password": "schlüssel"},
        {"host": "h", "extra": {"admin_api_key": "two parts"}},
        {"host": "h", "extra": {"signing_secret": "whsec_not-base64!"}},
        {"host": "h", "extra": {"signing_secret": "whsec_c2hvcnQ="}},
        {"host": "h", "extra": {"signing_secret": f"{SIGNING} whsec_c2hvcnQ="}},
    ],
)
def test_connection_invalid_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="onnection 'c'"):
        RunqyConnection.from_connection(connection(**fields))


def test_connection_key_with_line_break_is_stripped() -> None:
    settings = RunqyConnection.from_connection(connection(host="h", password="key!\n"))

    assert settings.api_key == "key!"


def test_connection_invalid_key_is_not_quoted_in_the_error() -> None:
    with pytest.raises(Misconfigured) as caught:
        RunqyConnection.from_connection(connection(host="h", password="key-one\ntwo"))

    assert "key-one" not in str(caught.value)


def test_redis_connection_is_read_as_the_redis_provider_does() -> None:
    settings = RedisConnection.from_connection(
        connection(
            host="r",
            port=6380,
            login="u",
            password="p!",
            extra={"db": 2, "ssl": True, "ssl_cert_reqs": "none"},
        )
    )

    expected = {
        "host": "r",
        "port": 6380,
        "db": 2,
        "username": "u",
        "password": "p!",
        "ssl": True,
        "ssl_cert_reqs": "none",
    }
    assert dict(settings.options) == expected
    assert settings.address == "r:6380/2"
    assert "p!" not in repr(settings)
    assert hash(settings) == hash(settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no host"),
        ({"host": "r", "schema": "first"}, "must be a whole number"),
    ],
)
def test_redis_connection_invalid_field_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misconfigured, match=message):
        RedisConnection.from_connection(connection(**fields))


GOOD = {
    "RUNQY_INBOX_REDIS_URL": "rediss://u:p@r:6380/3",
    "RUNQY_CALLBACK_SECRET": "a secret-of-the-receiver".replace(" ", "-"),
    "RUNQY_SIGNING_SECRET": f"{SIGNING} {OLD_SIGNING}",
}


def test_standalone_receiver_is_configured_by_environment() -> None:
    receiver = connection_from(GOOD, "runqy_default")

    options = dict(receiver.redis.options)
    assert receiver.redis.address == "r:6380/3"
    assert (options["ssl"], options["password"]) == (True, "p")
    assert receiver.signing_secrets == (SIGNING, OLD_SIGNING)
    assert "whsec" not in repr(receiver)


@pytest.mark.parametrize(
    "change",
    [
        {"RUNQY_INBOX_REDIS_URL": ""},
        {"RUNQY_CALLBACK_SECRET": ""},
        {"RUNQY_CALLBACK_SECRET": "short"},
        {"RUNQY_INBOX_REDIS_URL": "http://r"},
        {"RUNQY_SIGNING_SECRET": "whsec_not-base64!"},
        {"RUNQY_SIGNING_SECRET": "whsec_c2hvcnQ="},
    ],
)
def test_standalone_receiver_missing_variable_exits_with_message(
    change: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {**GOOD, **change}.items():
        monkeypatch.setenv(name, value)

    assert main(["--port", "0"]) == 2
    output = capsys.readouterr().err
    assert "The receiver cannot start" in output
    assert "short" not in output.replace("shorter", "")
