# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Begin a batch, or go on with that of the previous attempt."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from runqy_provider.airflow_compat import identity_of
from runqy_provider.client.queues import full_queue_name
from runqy_provider.connections import REDIS
from runqy_provider.hooks.delivery_fields import LATE_DELIVERY, DeliveryFields
from runqy_provider.jobs.attempt_store import NAMESPACE
from runqy_provider.jobs.batch.deletion import delete_pending
from runqy_provider.jobs.batch.progress import BatchProgress
from runqy_provider.jobs.batch.wait import find_results
from runqy_provider.jobs.received import while_unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from runqy_provider.jobs.attempt_store import AttemptStore
    from runqy_provider.jobs.batch.payloads import Payloads
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.base import Sink

log = logging.getLogger(__name__)


def begin(
    context: Context,
    settings: Settings,
    store: AttemptStore,
    payloads: Payloads,
    *,
    sink: Sink,
    deadline: float,
    deletes: bool,
) -> BatchProgress:
    """Return the previous attempt's batch if that asked for the same; else a new one.

    Args:
        context: The task instance's.
        settings: The runqy connection and the options.
        store: Where the previous attempt has stored its record.
        payloads: The payloads.
        sink: Where the results are to be delivered.
        deadline: Until when they are waited for, in seconds since 1970.
        deletes: Whether the pending jobs of another batch are deleted.

    Raises:
        DeliveryIdTaken: The sink has the first result of a batch without a record.
        RunqyError: The sink cannot be used, so it is not known what has arrived.
    """
    new = _new_batch(context, settings, payloads, sink, deadline)
    record = store.read() or {}
    previous = _previous(record)
    if previous is None or previous.batch_id != new.batch_id:
        fields = DeliveryFields(settings, sink, deadline)
        fields.check_is_new(new.delivery_id(0))
    if previous is None:
        return new
    conn_id = settings.connection.conn_id
    if previous.batch_id != new.batch_id:
        if deletes and previous.outstanding:
            # The task does not wait for them any more, and they must not run together
            # with the new ones.
            log.info("The payloads have changed: the earlier jobs are deleted.")
            delete_pending(conn_id, previous, log)
        return new
    if "manifest" in record:
        return previous  # the attempt was killed after it had written all results
    while_unavailable(lambda: find_results(settings, previous))
    if previous.expires <= time.time() and previous.outstanding:
        log.info("The callback URLs of the jobs in flight have expired.")
        delete_pending(conn_id, previous, log)
        for index in list(previous.outstanding):
            previous.on_ended(index, "Its callback URL has expired.")
    previous.run_failed_again()
    log.info(
        "Going on with batch %s of the previous attempt: %s.",
        previous.batch_id,
        previous,
    )
    return previous


def _previous(record: Mapping[str, Any]) -> BatchProgress | None:
    try:
        return BatchProgress.from_json(record["batch"]) if "batch" in record else None
    except (KeyError, ValueError, TypeError) as error:
        log.warning(
            "The record of the previous attempt cannot be read (%r), so all jobs are "
            "enqueued. Was it written by another version of airflow-provider-runqy?",
            error,
        )
        return None


def _new_batch(
    context: Context,
    settings: Settings,
    payloads: Payloads,
    sink: Sink,
    deadline: float,
) -> BatchProgress:
    connection = settings.connection
    queue = full_queue_name(payloads.runqy_queue)
    chooses_id = connection.transport == REDIS
    asked = [connection.conn_id, queue, sink.uri, chooses_id, payloads.digest]
    return BatchProgress(
        batch_id=_batch_id(context, asked),
        sink=sink.uri,
        runqy_queue=queue,
        chooses_id=chooses_id,
        total=payloads.total,
        digest=payloads.digest,
        expires=deadline + LATE_DELIVERY,
    )


def _batch_id(context: Context, asked: list[Any]) -> str:
    """Return the id of a batch, which all attempts to do the same have.

    It contains ``max_tries``, which Airflow raises when a user clears the task to run
    all jobs again; and the start of the run, which differs if a run is deleted and
    created again.
    """
    ti = context["ti"]
    started = str(context["dag_run"].start_date or ti.id)
    name = [*identity_of(ti), started, ti.max_tries or 0, asked]
    return str(uuid.uuid5(NAMESPACE, json.dumps(name)))
