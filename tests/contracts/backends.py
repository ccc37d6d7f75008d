"""What the contract tests need for each sink: its URI, its source, and a delivery."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from redis import Redis

from runqy_delivery import Delivery
from runqy_provider.client.queues import hash_key
from runqy_provider.inbox.reader import InboxSource
from runqy_provider.inbox.writer import InboxWriter, digest
from runqy_provider.models import JobRef
from runqy_provider.redis_client import async_client
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store.listing import ObjectSource
from runqy_provider.sinks.redis_storage import JobResultSource
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.sinks.sql.sink import SqlSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devtools.servers.mariadb import MariaDB
    from runqy_provider.sinks.base import BoundSink
    from runqy_provider.waiters.waiter import WaitTarget

#: Sinks whose server can be unavailable: a folder has none.
WITH_SERVER = ("webhook", "s3", "sql", "mariadb", "redis_storage")

#: Sinks that know where a result will be before its job is enqueued.
WITH_RESULT_URI = ("webhook", "folder", "s3", "sql", "mariadb")

RESULT = {"text": "delivered", "numbers": [1, 2.5, None]}


@dataclass
class Backend:
    """One sink, set up for a test.

    Attributes:
        uri: URI of the sink.
        source: Class of the source that holds its results.
        deliver: Delivers RESULT for a job, as the task code would.
        unavailable: Airflow connections, by id, with which the sink is unavailable;
            empty if it has no connection.
    """

    uri: str
    source: type[Any]
    deliver: Callable[[JobRef], None]
    unavailable: dict[str, dict[str, Any]] = field(default_factory=dict)
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def bound(self) -> BoundSink:
        """The sink, bound to ``runqy_default``."""
        return sink_from_uri(self.uri).bind(load_settings("runqy_default"))

    def job(self, number: int = 0) -> JobRef:
        """Return a job of this test."""
        name = f"{self.run}-{number}"
        return JobRef(name, self.uri, f"job-{name}", "contract.default")

    def target(self, job: JobRef) -> WaitTarget:
        """Return the one source without which the result cannot arrive."""
        (required,) = [at for at in self.bound.targets(job) if at.is_required]
        return required


def webhook_backend(port: int) -> Backend:
    """Return the inbox; a delivery is stored as the receiver does."""

    async def store(job: JobRef) -> None:
        redis = load_settings("runqy_default").redis
        assert redis is not None
        delivery = Delivery(job.delivery_id, result=RESULT)
        body = json.dumps({"task_id": job.delivery_id, "result": RESULT}).encode()
        async with async_client(redis, most_connections=1) as client:
            writer = InboxWriter(client, redis, "runqy_default")
            await writer.put(delivery, body, digest(delivery))

    return Backend(
        "webhook",
        InboxSource,
        lambda job: asyncio.run(store(job)),
        {"redis_default": {"conn_type": "redis", "host": "127.0.0.1", "port": port}},
    )


def folder_backend(folder: Path) -> Backend:
    """Return a shared folder."""
    folder.mkdir()

    def deliver(job: JobRef) -> None:
        (folder / job.delivery_id).write_text(json.dumps(RESULT))

    return Backend(f"file://{folder}", ObjectSource, deliver)


def s3_backend(s3_url: str, port: int) -> Backend:
    """Return the S3 endpoint of the sandbox."""

    def deliver(job: JobRef) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=s3_url,
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
            region_name="us-east-1",
        )
        client.put_object(
            Bucket="results",
            Key=f"contract/{job.delivery_id}",
            Body=json.dumps(RESULT).encode(),
            ContentType="application/json",
        )
        client.close()

    unavailable = {
        "conn_type": "aws",
        "login": "sandbox",
        "password": "sandbox",
        "extra": {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "region_name": "us-east-1",
        },
    }
    return Backend(
        "s3://results/contract", ObjectSource, deliver, {"aws_default": unavailable}
    )


def sql_backend(database: Path, port: int) -> Backend:
    """Return a table in SQLite, which needs no server."""
    columns = "id TEXT PRIMARY KEY, status TEXT, result TEXT, completed_at TEXT"
    with sqlite3.connect(database) as connection:
        connection.execute(f"CREATE TABLE results ({columns})")

    def deliver(job: JobRef) -> None:
        with sqlite3.connect(database) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO results VALUES (?, 'completed', ?, "
                "CURRENT_TIMESTAMP)",
                (job.delivery_id, json.dumps(RESULT)),
            )

    unavailable = {"conn_type": "postgres", "host": "127.0.0.1", "port": port}
    return Backend(
        "sql://contract_db/results?insert=false",
        SqlSource,
        deliver,
        {"contract_db": unavailable},
    )


def mariadb_backend(mariadb: MariaDB, port: int) -> Backend:
    """Return a table in MariaDB."""
    table = f"t_{uuid.uuid4().hex}"
    columns = "id varchar(36) PRIMARY KEY, status text, result text, completed_at "
    mariadb.execute(f"CREATE TABLE {table} ({columns} timestamp NULL)")

    def deliver(job: JobRef) -> None:
        mariadb.execute(
            f"REPLACE INTO {table} VALUES (%s, 'completed', %s, CURRENT_TIMESTAMP)",
            job.delivery_id,
            json.dumps(RESULT),
        )

    unavailable = {
        "conn_type": "mysql",
        "host": "127.0.0.1",
        "port": port,
        "extra": {"client": "pymysql"},
    }
    return Backend(
        f"sql://contract_db/{table}?insert=false",
        SqlSource,
        deliver,
        {"contract_db": unavailable},
    )


def redis_storage_backend(redis_url: str, port: int) -> Backend:
    """Return jobs in runqy's Redis, as runqy stores them."""

    def store(job: JobRef, fields: dict[str, Any]) -> None:
        with Redis.from_url(redis_url) as redis:
            redis.hset(hash_key(*job.require_job()), mapping=fields)

    def deliver(job: JobRef) -> None:
        completed_at = str(int(time.time()))
        result = json.dumps(RESULT)
        store(
            job,
            {"state": "completed", "result": result, "completed_at": completed_at},
        )

    class WithJobs(Backend):
        """Stores each job before a test waits for it."""

        def job(self, number: int = 0) -> JobRef:
            job = super().job(number)
            with Redis.from_url(redis_url) as redis:
                redis.hsetnx(hash_key(*job.require_job()), "state", "pending")
            return job

    unavailable = {"conn_type": "redis", "host": "127.0.0.1", "port": port}
    return WithJobs(
        "redis_storage", JobResultSource, deliver, {"runqy_redis": unavailable}
    )
