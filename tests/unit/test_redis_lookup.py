"""Fields of a Redis connection for a cluster, and for Sentinels."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Connection

from runqy_provider import settings as settings_module
from runqy_provider.errors import Misconfigured
from runqy_provider.receiver.__main__ import connection_from
from runqy_provider.redis_client import client
from runqy_provider.redis_connection import RedisConnection
from runqy_provider.settings import settings_of
from tests.support.doc_blocks import Block, all_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

SENTINELS = {"sentinels": ["s1", "s2:1", "[::1]:2"], "sentinel_master": "mymaster"}


def _redis(**fields: Any) -> RedisConnection:
    given = {"conn_id": "r", "conn_type": "redis", "host": "h", **fields}
    given["extra"] = json.dumps(given.get("extra", {}))
    return RedisConnection.from_connection(Connection(**given))


def test_redis_connection_cluster_names_all_nodes_once() -> None:
    extra = {"cluster": True, "startup_nodes": "n2:7001, h:6379 ,n3"}
    found = _redis(extra=extra)

    assert found.lookup is not None
    assert found.lookup.nodes == (("h", 6379), ("n2", 7001), ("n3", 6379))
    assert found.address == "h:6379, n2:7001, n3:6379 (cluster)"
    assert found.is_cluster


def test_redis_connection_sentinels_have_a_login_of_their_own() -> None:
    extra = {**SENTINELS, "sentinel_username": "su", "sentinel_password": "sp!"}
    found = _redis(host=None, login="u", password="p!", schema="2", extra=extra)

    assert found.lookup is not None
    assert found.lookup.nodes == (("s1", 26379), ("s2", 1), ("::1", 2))
    assert dict(found.lookup.login) == {"username": "su", "password": "sp!"}
    assert dict(found.options) == {"db": 2, "username": "u", "password": "p!"}
    assert found.address == "mymaster/2 (Sentinels: s1:26379, s2:1, [::1]:2)"
    assert found.passwords == ["p!", "sp!"]
    assert "p!" not in repr(found)
    assert hash(found) == hash(found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra": {"sentinels": ["s"]}}, "only one of sentinels and"),
        ({"extra": {"sentinel_master": "m"}}, "only one of sentinels and"),
        ({"extra": {**SENTINELS, "cluster": True}}, "both cluster and sentinels"),
        ({"extra": {"startup_nodes": "a:1"}}, 'Add "cluster": true'),
        ({"extra": {"cluster": True, "db": 1}}, "only database 0"),
        ({"extra": {"cluster": True, "startup_nodes": "a:b"}}, "Entry 1 of startup"),
        ({"extra": {**SENTINELS, "sentinels": ["s", "s:99999"]}}, "Entry 2 of sent"),
        ({"extra": {"cluster": "perhaps"}}, "must be true or false"),
        ({"extra": {"cluster": True}, "host": None}, "has no host"),
    ],
)
def test_redis_connection_lookup_field_wrong_says_what_to_do(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misconfigured, match=message):
        _redis(**fields)


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_docs_json_block_is_the_extra_of_a_redis_connection(block: Block) -> None:
    assert _redis(extra=json.loads(block.code)).has_failover


def test_redis_connection_address_with_password_is_not_quoted() -> None:
    with pytest.raises(Misconfigured, match="Entry 1") as caught:
        _redis(extra={**SENTINELS, "sentinels": "redis://:secret@s:1"})
    assert "secret" not in str(caught.value)


def test_redis_connection_namespace_is_a_hash_tag_only_in_a_cluster() -> None:
    single, clustered = _redis(), _redis(extra={"cluster": True})

    assert single.in_keys("n") == "n"
    assert single.for_namespace("n") is single
    assert clustered.in_keys("n") == "{n}"
    assert clustered.for_namespace("n").hash_tag == "{n}"


def test_context_runqys_own_redis_is_a_cluster_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings_module, "load_config", SimpleNamespace)
    runqy = Connection(
        conn_id="c",
        conn_type="runqy",
        host="http://h",
        extra=json.dumps({"runqy_redis_conn_id": "r"}),
    )
    find: Callable[[str], Connection] = lambda name: Connection(  # noqa: E731 - short
        conn_id=name, conn_type="redis", host="h", extra='{"cluster": true}'
    )
    with pytest.raises(Misconfigured, match="runqy keeps its queues in one Redis"):
        settings_of(runqy, find)


def test_client_cluster_without_namespace_is_refused() -> None:
    with pytest.raises(Misconfigured, match="only the inbox can use"):
        client(_redis(extra={"cluster": True}))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h/0?cluster=true&startup_nodes=a:1,b", "h:6379, a:1, b:6379 (cl"),
        ("redis://:p@/1?sentinels=s1,s2&sentinel_master=m", "m/1 (Sentinels: s1:2"),
        ("redis://", "localhost:6379/0"),
    ],
)
def test_standalone_receiver_url_has_the_fields_of_the_extra(
    url: str, address: str
) -> None:
    secret = "a-secret-of-the-receiver"
    environment = {"RUNQY_INBOX_REDIS_URL": url, "RUNQY_CALLBACK_SECRET": secret}
    found = connection_from(environment, "c").redis
    assert found.address.startswith(address)


def test_standalone_receiver_port_is_no_number_is_not_quoted() -> None:
    environment = {
        "RUNQY_INBOX_REDIS_URL": "redis://:secret/1@h:6379",
        "RUNQY_CALLBACK_SECRET": "a-secret-of-the-receiver",
    }
    with pytest.raises(ValueError, match="special characters") as caught:
        connection_from(environment, "c")
    assert "secret/1" not in str(caught.value)
    assert caught.value.__cause__ is None
