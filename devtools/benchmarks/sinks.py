# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""How long a result takes from the end of the handler to the trigger's event.

``python -m devtools.benchmarks.sinks [JOBS]``: jobs of about a second, through each
sink, on real servers: the sandbox's Redis and S3 endpoint, PostgreSQL, RabbitMQ, a
folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runqy_provider.context import SinkContext

TABLE = (
    "CREATE TABLE tasks (id text PRIMARY KEY, status text, result text, "
    "completed_at timestamptz)"
)


async def _one(sink: str, number: int, context: SinkContext) -> float:
    from runqy_provider.hooks.result import RunqyResultHook  # noqa: PLC0415 - heavy
    from runqy_provider.hooks.runqy import RunqyHook  # noqa: PLC0415 - heavy
    from runqy_provider.jobs.waiting import wait_for  # noqa: PLC0415 - heavy
    from runqy_provider.sinks.registry import sink_from_uri  # noqa: PLC0415 - heavy

    parsed = sink_from_uri(sink)
    deadline = time.time() + 120

    def enqueue() -> Any:
        with RunqyHook("runqy_default") as hook:
            return hook.submit(
                parsed,
                runqy_queue="stored" if sink == "redis_storage" else "helper",
                # Not in step with any interval of ours.
                payload={"seconds": 0.8 + 0.037 * (number % 11), "clock": True},
                delivery_id=str(uuid.uuid4()),
                deadline=deadline,
            )

    job = await asyncio.to_thread(enqueue)
    event = await wait_for(context, job, deadline=deadline)
    came = time.time()
    results = RunqyResultHook("runqy_default")
    ended = await asyncio.to_thread(
        results.collect, parsed, job.delivery_id, event.result_uri
    )
    return came - float(ended)


async def _all(sink: str, jobs: int) -> list[float]:
    from runqy_provider.context import load_context  # noqa: PLC0415 - heavy
    from runqy_provider.waiters.registry import close_waiters  # noqa: PLC0415 - heavy

    context = await asyncio.to_thread(load_context, "runqy_default")
    times = await asyncio.gather(*(_one(sink, n, context) for n in range(jobs)))
    await close_waiters()
    return times


def main(jobs: int = 20) -> None:
    """Start the servers and take each sink in turn."""
    from devtools.servers.postgres import running_postgres  # noqa: PLC0415 - heavy
    from devtools.servers.rabbitmq import running_rabbitmq  # noqa: PLC0415 - heavy
    from tests.support.stack import make_stack  # noqa: PLC0415 - heavy

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
        for conn_id, fields in stack.connections.items():
            os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        os.environ["AIRFLOW_CONN_PG"] = postgres.url
        os.environ["AIRFLOW_CONN_MQ"] = rabbitmq.url
        print(f"\nHandler's end to the trigger's event, {jobs} jobs of about a second")
        print(f"{'sink':<44}{'median s':>9}{'max s':>8}")
        bare = json.loads(os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"])
        del bare["extra"]["callback_secret"]
        for sink, runqy in (
            ("webhook", None),
            ("s3://results/timed", None),
            ("s3://results/timed", bare),
            (f"file://{folder}", bare),
            ("redis_storage", None),
            ("sql://pg/tasks", None),
            ("amqp://mq/timed", None),
            ("s3://results/timed sql://pg/tasks webhook", None),
        ):
            if runqy is not None:
                os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"] = json.dumps(runqy)
            times = asyncio.run(_all(sink, jobs))
            os.environ["AIRFLOW_CONN_RUNQY_DEFAULT"] = json.dumps(
                stack.connections["runqy_default"]
            )
            name = "file:///folder" if sink.startswith("file") else sink
            name += ", no receiver" if runqy else ""
            print(f"{name:<44}{statistics.median(times):>9.3f}{max(times):>8.3f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
