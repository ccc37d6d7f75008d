# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The hook for the runqy server: enqueue, look, delete."""

from __future__ import annotations

import functools
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_provider.airflow_compat import BaseHook
from runqy_provider.client import api
from runqy_provider.client.models import JobOptions, plain_payload
from runqy_provider.client.queues import full_queue_name, name_queues
from runqy_provider.connection_form import form_widgets, ui_field_behaviour
from runqy_provider.connections import DEFAULT_CONN_ID, REDIS, RunqyConnection
from runqy_provider.errors import (
    Misconfigured,
    QueueNotFound,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.inbox.callback_url import new_channel_delivery_id
from runqy_provider.models import JobRef
from runqy_provider.settings import settings_of
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import requests
    from airflow.sdk import Connection
    from tenacity import RetryCallState
    from typing_extensions import Self

    from runqy_provider.client.models import Job, Worker
    from runqy_provider.client.redis_transport import RedisTransport
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.registry import SinkArgument

T = TypeVar("T")

#: Seconds for which a request to an unavailable server is retried, and between two
#: messages that say so.
RETRY_FOR, RETRY_LOG_INTERVAL = 60.0, 20.0


class RunqyHook(BaseHook):
    """Talk to a runqy server.

    A hook has one HTTP session: use it as a context manager to close it. From async
    code, call it in a thread.

    :param runqy_conn_id: The runqy connection.
    :param retry_for: Seconds (60 by default) for which a request to an unavailable
        server is retried, with back-off and jitter. A request that the server may have
        accepted is never repeated.
    """

    conn_name_attr = "runqy_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "runqy"
    hook_name = "runqy"

    def __init__(
        self, runqy_conn_id: str = DEFAULT_CONN_ID, retry_for: float | None = None
    ) -> None:
        super().__init__()
        self.runqy_conn_id = runqy_conn_id
        self.retry_for = RETRY_FOR if retry_for is None else retry_for
        self._found_queues: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the form's standard fields are, for Airflow before 3.2."""
        return ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's other fields, for Airflow before 3.2."""
        return form_widgets()

    @classmethod
    def from_settings(cls, settings: Settings, retry_for: float | None = None) -> Self:
        """Return a hook for a connection that was fetched already."""
        hook = cls(settings.connection.conn_id, retry_for)
        hook.settings = settings
        hook.connection = settings.connection
        return hook

    @functools.cached_property
    def connection(self) -> RunqyConnection:
        """The fields of the connection; fetched once."""
        return RunqyConnection.from_connection(self._connection)

    @functools.cached_property
    def settings(self) -> Settings:
        """The connection, what it names, and the options; fetched once."""
        return settings_of(self._connection)

    @functools.cached_property
    def _connection(self) -> Connection:
        return self.get_connection(self.runqy_conn_id)

    @functools.cached_property
    def _client(self) -> requests.Session:
        return api.open_session(self.connection)

    @functools.cached_property
    def _redis(self) -> RedisTransport:
        from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - needs protobuf
            RedisTransport,
        )

        redis = self.settings.runqy_redis
        if redis is None:  # the connection could not be read
            raise Misconfigured(
                f"The transport of connection {self.runqy_conn_id!r} is 'redis', but "
                "it does not name runqy's own Redis."
            )
        return RedisTransport(redis)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        for name in ("_client", "_redis"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def get_conn(self) -> requests.Session:
        """Return the one HTTP session of this hook."""
        return self._client

    @staticmethod
    def new_delivery_id(channel: str | None = None) -> str:
        """Return an id for a new delivery, for ``submit``.

        Args:
            channel: The delivery starts the DAGs that watch this channel; see
                ``DeliveryChannelTrigger``. The sink must be, or include, a webhook.

        Raises:
            Misconfigured: The name of the channel is not valid.
        """
        return uuid.uuid4().hex if channel is None else new_channel_delivery_id(channel)

    def submit(
        self,
        sink: SinkArgument,
        *,
        runqy_queue: str,
        payload: Mapping[str, Any],
        delivery_id: str,
        deadline: float,
        job_timeout: float | None = None,
        options: JobOptions | None = None,
    ) -> JobRef:
        """Check a sink, and enqueue a job that delivers its result there.

        Args:
            sink: Where the result is to be delivered.
            runqy_queue: ``parent.sub``, or ``parent`` for its default sub-queue.
            payload: What the handler receives; a JSON object.
            delivery_id: Your id of the delivery: up to 128 letters, digits, dots,
                dashes and underscores; see ``new_delivery_id``.
            deadline: Until when the result is waited for, in seconds since 1970.
            job_timeout: Timeout that runqy stores with the job, in seconds.
            options: Other options of the job; see ``enqueue``.

        Raises:
            InvalidPayload: It is not an object, or has a reserved field.
            Misconfigured: The delivery_id, or a field of the connection, is not valid.
            DeliveryIdTaken: The sink has a delivery with this id already.
            SinkError: The result could not be read later: nothing was enqueued.
            Rejected: runqy refuses the job.
        """
        payload = plain_payload(payload, runqy_queue)
        bound = sink_from_uri(sink).bind(self.settings)
        bound.check_delivery(delivery_id)
        bound.check_is_new(delivery_id)
        asked = bound.prepared_fields(delivery_id, deadline)
        enqueued_at = round(time.time(), 3)
        job = self.enqueue(
            runqy_queue,
            {**payload, **asked},
            job_timeout=job_timeout,
            options=options,
            job_id=delivery_id if self.connection.transport == REDIS else None,
        )
        return JobRef(
            delivery_id, bound.sink.uri, job.job_id, job.runqy_queue, enqueued_at
        )

    def enqueue(
        self,
        runqy_queue: str,
        payload: Mapping[str, Any],
        *,
        job_timeout: float | None = None,
        options: JobOptions | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Enqueue a job, over the connection's transport.

        Args:
            runqy_queue: ``parent.sub``, or ``parent`` for its default sub-queue.
            payload: What the handler receives; a JSON object.
            job_timeout: Seconds, as runqy stores them (it does not enforce them).
            options: Other options of the job; most of them need the transport
                ``redis``.
            job_id: The job's id, which needs the transport ``redis``: if a job with it
                was enqueued before, nothing is enqueued. None: a new id.

        Raises:
            Misconfigured: The transport does not support one of the arguments.
            QueueNotFound: The queue, or its default sub-queue, does not exist.
            NotAllowed: The key is wrong or has the wrong role.
            InvalidPayload: It is not JSON, or the queue's schema refuses it.
            PayloadTooLarge: The body has more than 50 MiB.
            ServerUnavailable: The server is unavailable; the message says whether the
                job may have been enqueued.
        """
        chosen = options or JobOptions(timeout=job_timeout)
        if self.connection.transport == REDIS:
            return self._enqueue_in_redis(runqy_queue, [(job_id, payload)], chosen)[0]
        chosen.check_http(self.runqy_conn_id, job_id)
        with self._queues_named(runqy_queue):
            return self._call(api.enqueue(runqy_queue, payload, chosen.timeout))

    def enqueue_batch(
        self,
        runqy_queue: str,
        jobs: Sequence[tuple[str | None, Mapping[str, Any]]],
        options: JobOptions | None = None,
    ) -> list[str]:
        """Enqueue many jobs in one request, over the connection's transport.

        Over HTTP runqy does not check the payloads against the input schema of their
        queue.

        Args:
            runqy_queue: ``parent.sub``, or ``parent`` for its default sub-queue.
            jobs: The id and the payload of each; ids need the transport ``redis``. With
                those, the call may be repeated: no job is enqueued twice.
            options: Other options of the jobs; see ``enqueue``.

        Returns:
            The ids of the jobs; fewer than jobs if runqy could enqueue only a part.

        Raises:
            ServerUnavailable: The server is unavailable: nothing was enqueued. If it is
                an ``AnswerLost``, they may have been enqueued.
            Rejected: As in ``enqueue``: nothing was enqueued.
        """
        chosen = options or JobOptions()
        if self.connection.transport == REDIS:
            enqueued = self._enqueue_in_redis(runqy_queue, jobs, chosen)
            return [job.job_id for job in enqueued]
        for job_id, _ in jobs:
            chosen.check_http(self.runqy_conn_id, job_id)
        payloads = [payload for _, payload in jobs]
        with self._queues_named(runqy_queue):
            return self._call(api.enqueue_batch(runqy_queue, payloads, chosen.timeout))

    def get_job(self, job_id: str) -> Job:
        """Return the state of a job.

        Raises:
            JobVanished: runqy does not know it, or has forgotten it.
        """
        return self._call(api.get_job(job_id))

    def delete_job(self, runqy_queue: str, job_id: str) -> bool:
        """Delete a job that has not started; needs the admin key.

        Returns:
            True if it was deleted; False if it runs: runqy cannot stop a job.

        Raises:
            JobVanished: runqy does not know it any more.
            NotAllowed: The connection has no admin key, or a wrong one.
        """
        return self._call(api.delete_job(runqy_queue, job_id))

    def delete_pending(self, runqy_queue: str, job_ids: Sequence[str]) -> int:
        """Delete jobs that wait for a worker, in runqy's own Redis.

        Args:
            runqy_queue: Full name of the queue.
            job_ids: Ids of the jobs.

        Returns:
            How many were deleted; the others run, or have ended.

        Raises:
            Misconfigured: The transport is not ``redis``.
            SinkError: Redis is unavailable, or denies access.
        """
        return self._redis.delete_pending(runqy_queue, job_ids)

    def list_workers(self) -> list[Worker]:
        """Return the live workers; needs the admin key."""
        return self._call(api.list_workers())

    def check_key(self) -> None:
        """Check that the server accepts our key; enqueues nothing.

        Raises:
            NotAllowed: It does not accept it.
        """
        self._call(api.check_key())

    def test_connection(self) -> tuple[bool, str]:
        """Check all that tasks need, for Airflow's Test button and command line.

        Returns:
            Whether tasks can run, and one line per check; those that failed first.
        """
        from runqy_provider.checks import is_usable, report  # noqa: PLC0415 - rarely used
        from runqy_provider.checks.connection import (  # noqa: PLC0415 - same
            check_connection,
        )

        results = check_connection(self.runqy_conn_id, is_copy=True)
        return is_usable(results), report(results)

    def _call(self, request: api.ApiRequest[T]) -> T:
        client = self._client
        with self._end_of_retries():
            for attempt in Retrying(**self._retry_options()):
                with attempt:
                    return api.send(client, request, self.connection)
        raise AssertionError  # pragma: no cover - Retrying returns or raises

    @contextmanager
    def _end_of_retries(self) -> Iterator[None]:
        """Raise the last error as the class that the docs name, with the duration."""
        began = time.monotonic()
        try:
            yield
        except api.RetryableServerError as error:
            tried = time.monotonic() - began
            after = f" It was retried for {tried:.0f} s." if self.retry_for else ""
            raise ServerUnavailable(f"{error}{after}") from None

    @contextmanager
    def _queues_named(self, runqy_queue: str) -> Iterator[None]:
        """Name the existing queues if one was not found."""
        try:
            yield
        except QueueNotFound as error:
            raise self._queue_not_found(str(error), runqy_queue) from None

    def _queue_not_found(self, message: str, runqy_queue: str) -> QueueNotFound:
        redis = self.settings.runqy_redis
        return QueueNotFound(name_queues(message, runqy_queue, self.connection, redis))

    def _enqueue_in_redis(
        self,
        runqy_queue: str,
        jobs: Sequence[tuple[str | None, Mapping[str, Any]]],
        options: JobOptions,
    ) -> list[Job]:
        from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - needs protobuf
            NewJob,
            enqueued_job,
        )

        queue = full_queue_name(runqy_queue)
        new = [NewJob(job_id or str(uuid.uuid4()), payload) for job_id, payload in jobs]
        known = "with the same ids, none will run twice"
        which = f"Whether the {len(new):,} jobs are enqueued"
        if len(new) == 1:
            known = "with the same id, it will not run twice"
            which = f"Whether job {new[0].job_id} is enqueued"
        try:
            for attempt in Retrying(**self._retry_options(SinkUnavailable)):
                with attempt:
                    self._check_queue(queue)
                    answers = self._redis.enqueue(queue, new, options)
        except SinkUnavailable as error:
            raise ServerUnavailable(
                f"{error} {which} is not known; repeated {known}."
            ) from error
        repeated = answers.count(False)
        if repeated:
            self.log.info("%s of %s jobs were enqueued before.", repeated, len(new))
        return [enqueued_job(queue, job) for job in new]

    def _check_queue(self, queue: str) -> None:
        """Check that runqy has a queue: in Redis, any name would be accepted.

        Raises:
            QueueNotFound: It does not have it.
        """
        if queue in self._found_queues or self._redis.has_queue(queue):
            self._found_queues.add(queue)
            return
        if self.connection.admin_key is not None and queue in self._call(
            api.list_queues()
        ):
            return
        raise self._queue_not_found(
            f"runqy has no queue {queue!r}: in its Redis no job was ever enqueued to "
            "it, and no live worker serves it. Check its name, start a worker, or "
            f"enter an admin key in the connection {self.runqy_conn_id!r}, so that the "
            "server can be asked.",
            queue,
        )

    def _retry_options(
        self, kind: type[Exception] = api.RetryableServerError
    ) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(kind),
            "wait": wait_random_exponential(multiplier=0.2, max=10),
            "stop": stop_after_delay(self.retry_for),
            "reraise": True,
            "before_sleep": _RetryLog(self.log, self.retry_for),
        }


class _RetryLog:
    """Says once why a request is repeated, and then from time to time that it still is.

    Args:
        log: The logger of the hook.
        retry_for: For how many seconds the request is repeated.
    """

    def __init__(self, log: Any, retry_for: float) -> None:
        self._log, self._retry_for = log, retry_for
        self._next: float | None = None

    def __call__(self, state: RetryCallState) -> None:
        tried = state.seconds_since_start or 0.0
        if self._next is None:
            error = state.outcome.exception() if state.outcome else None
            self._log.warning(
                "%s It is tried again for up to %.0f s.", error, self._retry_for
            )
        elif tried >= self._next:
            self._log.info("Still unavailable after %.0f s; it is tried again.", tried)
        else:
            return
        self._next = tried + RETRY_LOG_INTERVAL
