# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Task code after runqy's guide: a persistent message on a durable queue."""

from __future__ import annotations

import json
import os
from typing import Any

import pika
from runqy_python import run, task


@task
def handle(payload: dict[str, Any]) -> None:
    """Publish the result."""
    result = {"sum": sum(payload["numbers"])}
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue="task_results", durable=True)
    channel.basic_publish(
        exchange="",
        routing_key="task_results",
        body=json.dumps({"task_id": payload["task_id"], "result": result}),
        properties=pika.BasicProperties(delivery_mode=2),
    )
    connection.close()


if __name__ == "__main__":
    run()
