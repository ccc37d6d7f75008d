# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How long a result takes from the end of the handler to the trigger's event.

Jobs of about a second go through each sink, on real servers: the sandbox's Redis and S3
endpoint, PostgreSQL, RabbitMQ, a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.benchmarks.servers import CONN_ID, as_environment
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.settings import Settings
    from runqy_sandbox.sandbox import Sandbox

#: Jobs through each sink, and how many sinks a quick run takes.
JOBS, QUICK_JOBS, QUICK_WAYS = 12, 4, 4

TABLE = (
    "CREATE TABLE tasks (id text PRIMARY KEY, status text, result text, "
    "completed_at timestamptz)"
)


async def _one(sink: str, number: int, settings: Settings) -> float:
    from runqy_provider.hooks.result import RunqyResultHook  # noqa: PLC0415 - heavy
    from runqy_provider.hooks.runqy import RunqyHook  # noqa: PLC0415 - heavy
    from runqy_provider.jobs.waiting import wait_for  # noqa: PLC0415 - heavy
    from runqy_provider.sinks.registry import sink_from_uri  # noqa: PLC0415 - heavy

    parsed = sink_from_uri(sink)
    deadline = time.time() + 120

    def enqueue() -> Any:
        with RunqyHook(CONN_ID) as hook:
            return hook.submit(
                parsed,
                runqy_queue="stored" if sink == "redis_storage" else "helper",
                # Not in step with any interval of ours.
                payload={"seconds": 0.8 + 0.037 * (number % 11), "clock": True},
                delivery_id=str(uuid.uuid4()),
                deadline=deadline,
            )

    job = await asyncio.to_thread(enqueue)
    event = await wait_for(settings, job, deadline=deadline)
    came = time.time()
    results = RunqyResultHook(CONN_ID)
    ended = await asyncio.to_thread(
        results.collect, parsed, job.delivery_id, event.result_uri
    )
    return came - float(ended)


async def _all(sink: str, jobs: int) -> list[float]:
    from runqy_provider.settings import load_settings  # noqa: PLC0415 - heavy
    from runqy_provider.waiters.waiter import close_waiters  # noqa: PLC0415 - heavy

    context = await asyncio.to_thread(load_settings, CONN_ID)
    times = await asyncio.gather(*(_one(sink, n, context) for n in range(jobs)))
    await close_waiters()
    return times


def run(*, quick: bool) -> Iterator[Table]:
    """Start the servers and take each sink in turn."""
    from devtools.servers.postgres import running_postgres  # noqa: PLC0415 - heavy
    from devtools.servers.rabbitmq import running_rabbitmq  # noqa: PLC0415 - heavy
    from tests.support.stack import make_stack  # noqa: PLC0415 - heavy

    table = Table(
        "sinks",
        "From the end of the handler to the trigger's event",
        (
            *("sink", "jobs", "median ms", "max ms"),
            *("PUTs per job", "GETs and HEADs per job", "LISTs in all"),
        ),
        note="Requests are those to the object store, with the result read into XCom.",
    )
    with contextlib.ExitStack() as resources:
        postgres = resources.enter_context(running_postgres())
        rabbitmq = resources.enter_context(running_rabbitmq())
        with postgres.connect() as connection:
            connection.execute(TABLE)
        folder = resources.enter_context(tempfile.TemporaryDirectory())
        code = resources.enter_context(tempfile.TemporaryDirectory())
        environment = {
            "RUNQY_DELIVERY_DATABASE_URL": postgres.url,
            "RUNQY_DELIVERY_AMQP_URL": rabbitmq.url,
        }
        stack = resources.enter_context(make_stack(Path(code), environment))
        os.environ.update(as_environment(stack.connections))
        os.environ["AIRFLOW_CONN_PG"] = postgres.url
        os.environ["AIRFLOW_CONN_MQ"] = rabbitmq.url
        bare = json.loads(os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"])
        del bare["extra"]["callback_secret"]
        ways: list[tuple[str, dict[str, object] | None]] = [
            ("webhook", None),
            ("s3://results/timed", None),
            ("s3://results/timed", bare),
            ("sql://pg/tasks", None),
            ("amqp://mq/timed", None),
            ("redis_storage", None),
            (f"file://{folder}", bare),
            ("s3://results/timed sql://pg/tasks webhook", None),
        ]
        for sink, runqy in ways[:QUICK_WAYS] if quick else ways:
            if runqy is not None:
                os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"] = json.dumps(runqy)
            before = _requests(stack.sandbox)
            times = asyncio.run(_all(sink, QUICK_JOBS if quick else JOBS))
            after = _requests(stack.sandbox)
            puts, reads, lists = (after[kind] - before[kind] for kind in after)
            os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"] = json.dumps(
                stack.connections[CONN_ID]
            )
            name = "file:///folder" if sink.startswith("file") else sink
            name += ", no receiver" if runqy else ""
            median, longest = statistics.median(times) * 1000, max(times) * 1000
            shares = (puts / len(times), reads / len(times))
            table.add(name, len(times), median, longest, *shares, lists)
            yield table


def _requests(sandbox: Sandbox) -> dict[str, int]:
    """Return how many requests of each kind the log of the object store has."""
    log = sandbox.s3.log.read_text()
    lists = log.count("list-type=2")
    return {
        "PUT": log.count('"PUT '),
        "GET or HEAD": log.count('"HEAD ') + log.count('"GET ') - lists,
        "LIST": lists,
    }
