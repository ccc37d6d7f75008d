"""Redis servers that fail over by themselves, and connections to their inbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Connection

from devtools.servers.redis_cluster import running_redis_cluster
from devtools.servers.redis_sentinel import running_sentinels
from runqy_provider.redis_connection import RedisConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devtools.servers.redis_cluster import RedisCluster
    from devtools.servers.redis_sentinel import SentinelGroup


def redis_connection(**fields: Any) -> RedisConnection:
    """Return what the provider reads from an Airflow connection."""
    extra = json.dumps(fields.pop("extra", {}))
    given = {"conn_id": "redis_default", "conn_type": "redis", **fields}
    return RedisConnection.from_connection(Connection(**given, extra=extra))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Redis Cluster; whoever kills a node starts it again."""
    with running_redis_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """A Redis, a replica and three Sentinels; whoever kills one starts it again."""
    with running_sentinels(tmp_path_factory.mktemp("sentinels")) as group:
        yield group


@pytest.fixture
def cluster_settings(cluster: RedisCluster) -> RedisConnection:
    """The connection to the cluster; it names three of the nodes."""
    return redis_connection(**cluster.airflow_connection)


@pytest.fixture
def sentinel_settings(sentinels: SentinelGroup) -> RedisConnection:
    """The connection to the Redis behind Sentinels."""
    return redis_connection(**sentinels.airflow_connection)


@pytest.fixture(params=["cluster", "sentinels"])
def found_redis(request: pytest.FixtureRequest) -> RedisConnection:
    """A Redis whose primary is found: of a cluster, or of Sentinels."""
    name = "cluster_settings" if request.param == "cluster" else "sentinel_settings"
    settings: RedisConnection = request.getfixturevalue(name)
    return settings
