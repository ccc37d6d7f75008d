# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Results in a message queue: needs a broker, such as RabbitMQ."""

from __future__ import annotations

from airflow.sdk import dag

from runqy_provider.operators.runqy import RunqyOperator


@dag(schedule=None, tags=["runqy"])
def runqy_amqp() -> None:
    """Add up after the guide, and resize with our helper."""
    RunqyOperator(
        task_id="by_guide",
        runqy_queue="guide_amqp",
        payload={"numbers": [2, 4, 6]},
        sink="amqp://rabbitmq_default/task_results",
    )
    RunqyOperator(
        task_id="resize",
        runqy_queue="resize",
        payload={"scene": 2},
        sink="amqp://rabbitmq_default/task_results",
    )


runqy_amqp()
