# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The hook for the runqy server: enqueue, look, delete."""

from __future__ import annotations

import functools
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_provider.airflow_compat import BaseHook, in_thread
from runqy_provider.client import requests as api
from runqy_provider.client import transport
from runqy_provider.client.job_options import JobOptions
from runqy_provider.client.payload import plain_payload
from runqy_provider.client.queues import full_queue_name, queues_sentence
from runqy_provider.connection_form import form_widgets, ui_field_behaviour
from runqy_provider.connections import DEFAULT_CONN_ID, REDIS, RunqyConnection
from runqy_provider.context import context_of
from runqy_provider.errors import (
    Misconfigured,
    QueueNotFound,
    ServerUnavailable,
    SinkUnavailable,
)
from runqy_provider.inbox.callback_url import check_delivery_id
from runqy_provider.inbox.channel import channel_of, new_channel_delivery_id
from runqy_provider.models import JobRef
from runqy_provider.sinks import failure_channel
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_from_uri

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import httpx
    import requests
    from airflow.sdk import Connection
    from typing_extensions import Self

    from runqy_provider.client.models import Job, Worker
    from runqy_provider.client.redis_transport import RedisTransport
    from runqy_provider.context import SinkContext
    from runqy_provider.sinks.registry import SinkArgument

T = TypeVar("T")

#: Seconds for which a request to an unavailable server is retried.
RETRY_FOR = 60.0

#: Seconds for which a delivery is accepted after its wait has ended: a late result is
#: kept, and a retry of the task can still find it.
LATE_DELIVERY = 24 * 3600


class RunqyHook(BaseHook):
    """Talk to a runqy server.

    A hook has one HTTP session for sync calls, and one for async calls: use it as a
    context manager, or as an async one, to close them.

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
        self._async_client: httpx.AsyncClient | None = None
        self._async_settings: RunqyConnection | None = None
        self._found_queues: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        client, self._async_client = self._async_client, None
        if client is not None:
            await client.aclose()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the form's standard fields are, for Airflow before 3.2."""
        return ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's other fields, for Airflow before 3.2."""
        return form_widgets()

    @classmethod
    def from_context(cls, context: SinkContext, retry_for: float | None = None) -> Self:
        """Return a hook for a connection that was fetched already."""
        hook = cls(context.connection.conn_id, retry_for)
        hook.context = context
        hook.settings = context.connection
        return hook

    @functools.cached_property
    def settings(self) -> RunqyConnection:
        """The fields of the connection; fetched once."""
        return RunqyConnection.from_connection(self._connection)

    @functools.cached_property
    def context(self) -> SinkContext:
        """The connection, what it names, and the options; fetched once."""
        return context_of(self._connection)

    @functools.cached_property
    def _connection(self) -> Connection:
        return self.get_connection(self.runqy_conn_id)

    @functools.cached_property
    def _client(self) -> requests.Session:
        return transport.open_session(self.settings)

    @functools.cached_property
    def _redis(self) -> RedisTransport:
        from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - needs protobuf
            RedisTransport,
        )

        redis = self.context.runqy_redis
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
            options: What else is asked for the job; see ``enqueue``.

        Raises:
            InvalidPayload: It is not an object, or has a reserved field.
            Misconfigured: The delivery_id, or a field of the connection, is not valid.
            SinkError: The result could not be read later: nothing was enqueued.
            Rejected: runqy refuses the job.
        """
        check_delivery_id(delivery_id)
        payload = plain_payload(payload, runqy_queue)
        bound = sink_from_uri(sink).bind(self.context)
        if channel_of(delivery_id) and not bound.sink.delivers_by_webhook:
            raise Misconfigured(
                f"A delivery to a channel must reach the inbox, and the sink "
                f"{bound.sink.uri!r} has no webhook. Add it: "
                f"sink='{bound.sink.uri} webhook'."
            )
        bound.check()
        expires = deadline + LATE_DELIVERY
        request = bound.request(delivery_id, expires)
        if request.webhook_url is not None:
            InboxBackend(self.context).warn_of_loopback()
        request = failure_channel.with_channel(bound, request, expires)
        bound.prepare(delivery_id)
        enqueued_at = round(time.time(), 3)
        job = self.enqueue(
            runqy_queue,
            {**payload, **request.to_fields()},
            job_timeout=job_timeout,
            options=options,
            job_id=delivery_id if self.settings.transport == REDIS else None,
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
            options: What else is asked for the job; most of it needs the transport
                ``redis``.
            job_id: The job's id, which needs the transport ``redis``: where a job with
                it was enqueued before, nothing is enqueued. None: a new one.

        Raises:
            Misconfigured: The transport cannot do what is asked for.
            QueueNotFound: No such queue, or no default sub-queue.
            NotAllowed: The key is wrong or has the wrong role.
            InvalidPayload: It is not JSON, or the queue's schema refuses it.
            PayloadTooLarge: The body has more than 50 MiB.
            ServerUnavailable: The server is unavailable; the message says whether the
                job may have been enqueued.
        """
        chosen = options or JobOptions(timeout=job_timeout)
        if self.settings.transport == REDIS:
            return self._enqueue_in_redis(runqy_queue, payload, chosen, job_id)
        chosen.check_http(self.runqy_conn_id, job_id)
        try:
            return self._call(api.enqueue(runqy_queue, payload, chosen.timeout))
        except QueueNotFound as error:
            queues = queues_sentence(self.settings, self.context.runqy_redis)
            raise QueueNotFound(f"{error}{queues}") from error

    async def aenqueue(
        self,
        runqy_queue: str,
        payload: Mapping[str, Any],
        *,
        job_timeout: float | None = None,
    ) -> Job:
        """Enqueue a job from async code; see enqueue."""
        if (await self._asettings()).transport == REDIS:
            return await in_thread(
                lambda: self.enqueue(runqy_queue, payload, job_timeout=job_timeout)
            )
        return await self._acall(api.enqueue(runqy_queue, payload, job_timeout))

    def get_job(self, job_id: str) -> Job:
        """Return the state of a job.

        Raises:
            JobVanished: runqy does not know it, or has forgotten it.
        """
        return self._call(api.get_job(job_id))

    async def aget_job(self, job_id: str) -> Job:
        """Return the state of a job from async code; see get_job."""
        return await self._acall(api.get_job(job_id))

    def delete_job(self, runqy_queue: str, job_id: str) -> bool:
        """Delete a job that has not started; needs the admin key.

        Returns:
            True where it was deleted; False where it runs: runqy cannot stop a job.

        Raises:
            JobVanished: runqy does not know it any more.
            NotAllowed: The connection has no admin key, or a wrong one.
        """
        return self._call(api.delete_job(runqy_queue, job_id))

    async def adelete_job(self, runqy_queue: str, job_id: str) -> bool:
        """Delete a job from async code; see delete_job."""
        return await self._acall(api.delete_job(runqy_queue, job_id))

    def list_workers(self) -> list[Worker]:
        """Return the live workers; needs the admin key."""
        return self._call(api.list_workers())

    async def alist_workers(self) -> list[Worker]:
        """Return the live workers from async code; see list_workers."""
        return await self._acall(api.list_workers())

    def check_key(self) -> None:
        """Check that the server accepts our key; enqueues nothing.

        Raises:
            NotAllowed: It does not.
        """
        self._call(api.check_key())

    def is_healthy(self) -> bool:
        """Return whether the server answers and reaches its Redis."""
        return self._call(api.health())

    async def ais_healthy(self) -> bool:
        """Return from async code whether the server is healthy; see is_healthy."""
        return await self._acall(api.health())

    def test_connection(self) -> tuple[bool, str]:
        """Check all that tasks need, for Airflow's Test button and command line.

        Returns:
            Whether tasks can run, and a line for each check; those that failed first.
        """
        from runqy_provider.checks.connection import (  # noqa: PLC0415 - only for tests of connections
            check_connection,
        )
        from runqy_provider.checks.result import is_usable, report  # noqa: PLC0415 - same

        results = check_connection(self.runqy_conn_id)
        return is_usable(results), report(results)

    def _call(self, request: api.ApiRequest[T]) -> T:
        client = self._client
        for attempt in Retrying(**self._retry_options()):
            with attempt:
                return transport.send(client, request, self.settings)
        raise AssertionError  # pragma: no cover - Retrying returns or raises

    def _enqueue_in_redis(
        self,
        runqy_queue: str,
        payload: Mapping[str, Any],
        options: JobOptions,
        job_id: str | None,
    ) -> Job:
        from runqy_provider.client.redis_transport import (  # noqa: PLC0415 - needs protobuf
            NewJob,
            enqueued_job,
        )

        queue = full_queue_name(runqy_queue)
        job = NewJob(job_id or str(uuid.uuid4()), payload)
        try:
            for attempt in Retrying(**self._retry_options(SinkUnavailable)):
                with attempt:
                    self._check_queue(queue)
                    [is_new] = self._redis.enqueue(queue, [job], options)
        except SinkUnavailable as error:
            raise ServerUnavailable(
                f"{error} Whether job {job.job_id} is enqueued is not known; repeated "
                "with the same id, it will not run twice."
            ) from error
        if not is_new:
            self.log.info("Job %s was enqueued before.", job.job_id)
        return enqueued_job(queue, job)

    def _check_queue(self, queue: str) -> None:
        """Check that runqy has a queue: in Redis, any name would be accepted.

        Raises:
            QueueNotFound: It has not.
        """
        if queue in self._found_queues or self._redis.has_queue(queue):
            self._found_queues.add(queue)
            return
        if self.settings.admin_key is not None and queue in self._call(
            api.list_queues()
        ):
            return
        queues = queues_sentence(self.settings, self.context.runqy_redis)
        raise QueueNotFound(
            f"runqy has no queue {queue!r}: in its Redis no job was ever enqueued to "
            f"it, and no live worker serves it. Check its name, start a worker, or "
            f"enter an admin key in the connection {self.runqy_conn_id!r}, with which "
            f"the server is asked.{queues}"
        )

    async def _asettings(self) -> RunqyConnection:
        if self._async_settings is None:
            self._async_settings = RunqyConnection.from_connection(
                await in_thread(self.get_connection, self.runqy_conn_id)
            )
        return self._async_settings

    async def _acall(self, request: api.ApiRequest[T]) -> T:
        settings = await self._asettings()
        if self._async_client is None:
            self._async_client = transport.open_async_client(settings)
        async for attempt in AsyncRetrying(**self._retry_options()):
            with attempt:
                return await transport.asend(self._async_client, request, settings)
        raise AssertionError  # pragma: no cover - AsyncRetrying returns or raises

    def _retry_options(
        self, kind: type[Exception] = transport.RetryableServerError
    ) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(kind),
            "wait": wait_random_exponential(multiplier=0.2, max=10),
            "stop": stop_after_delay(self.retry_for),
            "reraise": True,
            "before_sleep": lambda state: self.log.warning(
                "%s; will retry", state.outcome.exception()
            ),
        }
