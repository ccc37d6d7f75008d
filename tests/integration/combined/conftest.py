"""S3, PostgreSQL and RabbitMQ together, and task code that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devtools.servers.postgres import Postgres, running_postgres
from devtools.servers.rabbitmq import RabbitMQ, running_rabbitmq
from tests.support.caches import dispose_engines
from tests.support.stack import Stack, make_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As in runqy's guide: "store large data in S3, metadata in the database".
GUIDE = """
import os
import boto3
import psycopg
from runqy_python import run, task

@task
def handle(payload):
    key = payload["task_id"]
    if payload.get("own_key"):
        key = "own/" + key
        result = f"s3://results/{key}"
    else:
        key = payload["delivery"]["key"]
        result = None
    boto3.client("s3").put_object(
        Bucket="results", Key=key, Body=b"[1,2]", ContentType="application/json"
    )
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(
            "UPDATE tasks SET status = 'completed', result = %s WHERE id = %s",
            [result, payload["task_id"]],
        )

run()
"""


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        with postgres.connect() as connection:
            connection.execute(
                "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL, "
                "result text, completed_at timestamptz)"
            )
        yield postgres


@pytest.fixture(scope="package")
def rabbitmq() -> Iterator[RabbitMQ]:
    with running_rabbitmq() as rabbitmq:
        yield rabbitmq


@pytest.fixture(scope="package")
def stack(
    postgres: Postgres,
    rabbitmq: RabbitMQ,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    environment = {
        "DATABASE_URL": postgres.url,
        "RUNQY_DELIVERY_DATABASE_URL": postgres.url,
        "RUNQY_DELIVERY_AMQP_URL": rabbitmq.url,
        "RUNQY_DELIVERY_RETRY_FOR": "5",
    }
    code = tmp_path_factory.mktemp("task_code")
    with make_stack(code, environment, {"guide_combined": GUIDE}) as stack:
        yield stack


@pytest.fixture(autouse=True)
def connections(
    postgres: Postgres, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Airflow's connections to the database and the broker."""
    monkeypatch.setenv("AIRFLOW_CONN_PG", postgres.url)
    monkeypatch.setenv("AIRFLOW_CONN_RABBIT", rabbitmq.url)
    yield
    dispose_engines()
