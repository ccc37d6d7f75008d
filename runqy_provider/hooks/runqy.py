# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The hook for the runqy server: enqueue, look, delete."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow.sdk import BaseHook
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from runqy_provider.client import requests as calls
from runqy_provider.client import transport as http
from runqy_provider.connections import DEFAULT_CONN_ID, RunqySettings
from runqy_provider.errors import RunqyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import httpx
    import requests

    from runqy_provider.client.models import Job, Worker

T = TypeVar("T")

#: Seconds for which a server that is away is tried again.
RETRY_FOR = 60.0


class RunqyHook(BaseHook):
    """Speak to a runqy server.

    One HTTP session serves all calls of a hook, and one all its async calls: use it as
    a context manager, or as an async one, to close them.

    :param runqy_conn_id: The runqy connection.
    :param retry_for: Seconds for which a server that is away is tried again, with
        back-off and jitter. A request that may have been taken is never repeated.
    """

    conn_name_attr = "runqy_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "runqy"
    hook_name = "runqy"

    def __init__(
        self, runqy_conn_id: str = DEFAULT_CONN_ID, retry_for: float = RETRY_FOR
    ) -> None:
        super().__init__()
        self.runqy_conn_id = runqy_conn_id
        self.retry_for = retry_for
        self._async_client: httpx.AsyncClient | None = None
        self._async_settings: RunqySettings | None = None

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
        client, self._async_client = self._async_client, None
        if client is not None:
            await client.aclose()

    @functools.cached_property
    def settings(self) -> RunqySettings:
        """The connection's fields; fetched once."""
        return RunqySettings.from_connection(self.get_connection(self.runqy_conn_id))

    @functools.cached_property
    def _client(self) -> requests.Session:
        return http.open_session(self.settings)

    def close(self) -> None:
        """Close the HTTP session; a later call opens another."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def get_conn(self) -> requests.Session:
        """Return the one HTTP session of this hook."""
        return self._client

    def enqueue(
        self,
        runqy_queue: str,
        payload: Mapping[str, Any],
        *,
        job_timeout: float | None = None,
    ) -> Job:
        """Enqueue a job.

        Args:
            runqy_queue: ``parent.sub``, or ``parent`` for its default sub-queue.
            payload: What the handler gets; a JSON object.
            job_timeout: Seconds, as runqy stores them (it does not enforce them).

        Raises:
            QueueNotFound: No such queue, or no default sub-queue.
            NotAllowed: The key is wrong or has the wrong role.
            InvalidPayload: It is not JSON, or the queue's schema refuses it.
            PayloadTooLarge: The body has more than 50 MiB.
            ServerUnavailable: The server is away; says if the job may be enqueued.
        """
        return self._call(calls.enqueue(runqy_queue, payload, job_timeout))

    async def aenqueue(
        self,
        runqy_queue: str,
        payload: Mapping[str, Any],
        *,
        job_timeout: float | None = None,
    ) -> Job:
        """Enqueue a job from async code; see enqueue."""
        return await self._acall(calls.enqueue(runqy_queue, payload, job_timeout))

    def get_job(self, job_id: str) -> Job:
        """Look at a job.

        Raises:
            JobVanished: runqy does not know it, or has forgotten it.
        """
        return self._call(calls.get_job(job_id))

    async def aget_job(self, job_id: str) -> Job:
        """Look at a job from async code; see get_job."""
        return await self._acall(calls.get_job(job_id))

    def delete_job(self, runqy_queue: str, job_id: str) -> bool:
        """Delete a job that does not run; needs the admin key.

        Returns:
            True where it was deleted, False where it runs: runqy cannot stop that.

        Raises:
            JobVanished: It is gone already.
            NotAllowed: The connection has no admin key, or a wrong one.
        """
        return self._call(calls.delete_job(runqy_queue, job_id))

    async def adelete_job(self, runqy_queue: str, job_id: str) -> bool:
        """Delete a job from async code; see delete_job."""
        return await self._acall(calls.delete_job(runqy_queue, job_id))

    def list_workers(self) -> list[Worker]:
        """Return the live workers; needs the admin key."""
        return self._call(calls.list_workers())

    async def alist_workers(self) -> list[Worker]:
        """Return the live workers from async code; see list_workers."""
        return await self._acall(calls.list_workers())

    def check_key(self) -> None:
        """Ask whether the server takes our key; enqueues nothing.

        Raises:
            NotAllowed: It does not.
        """
        self._call(calls.check_key())

    def is_healthy(self) -> bool:
        """Tell whether the server answers and reaches its Redis."""
        return self._call(calls.health())

    async def ais_healthy(self) -> bool:
        """Tell the same from async code."""
        return await self._acall(calls.health())

    def test_connection(self) -> tuple[bool, str]:
        """Tell Airflow's connection form whether the server takes us."""
        with type(self)(self.runqy_conn_id, retry_for=0) as hook:
            try:
                if not hook.is_healthy():
                    return False, "The runqy server answers, but its Redis is away."
                hook.check_key()
            except RunqyError as error:
                return False, str(error)
            return True, f"runqy at {hook.settings.server_url} takes our key."

    def _call(self, call: calls.Call[T]) -> T:
        client = self._client
        for attempt in Retrying(**self._patience()):
            with attempt:
                return http.send(client, call, self.settings)
        raise AssertionError  # pragma: no cover - Retrying returns or raises

    async def _acall(self, call: calls.Call[T]) -> T:
        if self._async_settings is None:
            self._async_settings = RunqySettings.from_connection(
                await self.aget_connection(self.runqy_conn_id)
            )
        settings = self._async_settings
        if self._async_client is None:
            self._async_client = http.open_async_client(settings)
        async for attempt in AsyncRetrying(**self._patience()):
            with attempt:
                return await http.asend(self._async_client, call, settings)
        raise AssertionError  # pragma: no cover - AsyncRetrying returns or raises

    def _patience(self) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(http.Away),
            "wait": wait_random_exponential(multiplier=0.2, max=10),
            "stop": stop_after_delay(self.retry_for),
            "reraise": True,
            "before_sleep": lambda state: self.log.warning(
                "%s; trying again", state.outcome.exception()
            ),
        }
