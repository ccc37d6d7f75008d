"""A Redis connection is read alike from a URI and from JSON."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from runqy_provider.connections import RunqyConnection
from runqy_provider.errors import Misconfigured
from runqy_provider.redis_connection import RedisConnection

TRUE = ["True", "true", "1", "yes"]
FALSE = ["False", "false", "0", "no"]
HOSTS = st.sampled_from(["redis.example", "10.1.2.3", "::1", "fd00::5"])
PASSWORDS = st.text("abcXYZ019@:/?#% ", min_size=1, max_size=8)


@given(
    host=HOSTS,
    port=st.integers(1, 65535),
    db=st.integers(0, 15),
    password=st.none() | PASSWORDS,
    tls=st.sampled_from(["scheme", "text", "json", "off", "not given"]),
    spelling=st.integers(0, 3),
)
def test_redis_connection_uri_and_json_are_read_alike(
    host: str, port: int, db: int, password: str | None, tls: str, spelling: int
) -> None:
    scheme = "rediss" if tls == "scheme" else "redis"
    netloc = f"[{host}]" if ":" in host else host
    login = "" if password is None else f":{quote(password, safe='')}@"
    query: dict[str, Any] = {"db": db}
    extra: dict[str, Any] = {"db": db}
    if tls in ("text", "off"):
        query["ssl"] = (TRUE if tls == "text" else FALSE)[spelling]
        extra["ssl"] = tls == "text"
    elif tls == "json":
        query["ssl"], extra["ssl"] = "true", True
    uri = f"{scheme}://{login}{netloc}:{port}/7?{urlencode(query)}"

    by_uri = RedisConnection.from_connection(Connection.from_uri(uri, conn_id="r"))
    by_json = RedisConnection.from_connection(
        Connection(
            conn_id="r",
            conn_type=scheme,
            host=host,
            port=port,
            schema="7",
            password=password,
            extra=json.dumps(extra),
        )
    )

    assert dict(by_uri.options) == dict(by_json.options)
    assert by_uri.address == by_json.address == f"{netloc}:{port}/{db}"
    options = dict(by_uri.options)
    assert options.get("ssl", False) is (tls in ("scheme", "text", "json"))
    assert (options["host"], options["db"]) == (host, db)
    assert options.get("password") == password


def _redis(**fields: Any) -> RedisConnection:
    extra = fields.pop("extra", None)
    given: dict[str, Any] = {"conn_id": "r", "conn_type": "redis", "host": "h"}
    connection = Connection(
        **{**given, **fields}, extra=None if extra is None else json.dumps(extra)
    )
    return RedisConnection.from_connection(connection)


def test_redis_connection_db_zero_in_extra_wins_over_schema() -> None:
    assert dict(_redis(schema="5", extra={"db": 0}).options)["db"] == 0
    assert dict(_redis(schema="5").options)["db"] == 5
    assert dict(_redis().options)["db"] == 0


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"ssl": "maybe"}, "ssl"),
        ({"db": "first"}, "db"),
        ({"db": -1}, "db"),
        ({"db": True}, "db"),
        ({"ssl_check_hostname": "perhaps"}, "ssl_check_hostname"),
    ],
)
def test_redis_connection_invalid_field_is_named(
    extra: dict[str, Any], name: str
) -> None:
    with pytest.raises(Misconfigured, match=f"{name} of connection 'r'"):
        _redis(extra=extra)


def test_redis_connection_cluster_false_as_text_is_no_cluster() -> None:
    assert not _redis(extra={"cluster": "False"}).is_cluster
    assert _redis(extra={"cluster": "True"}).is_cluster


@pytest.mark.parametrize("kind", ["http", "generic"])
def test_runqy_connection_of_other_type_is_refused(kind: str) -> None:
    with pytest.raises(Misconfigured, match="type 'runqy'"):
        RunqyConnection.from_connection(
            Connection(conn_id="c", conn_type=kind, host="http://h")
        )


@pytest.mark.parametrize("kind", ["runqy", None, ""])
def test_runqy_connection_without_type_is_accepted(kind: Any) -> None:
    connection = Connection(conn_id="c", conn_type="runqy", host="http://h")
    connection.conn_type = kind
    assert RunqyConnection.from_connection(connection).server_url == "http://h"
