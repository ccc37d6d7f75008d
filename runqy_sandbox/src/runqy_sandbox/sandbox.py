# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The whole sandbox as one context manager, for demos and for your DAG tests."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runqy_sandbox.asynq.keys import worker_key
from runqy_sandbox.errors import SandboxError, require_packages
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import HOST, ask, free_port
from runqy_sandbox.process.watchdog import Guardian
from runqy_sandbox.queues import read_queues
from runqy_sandbox.redis_server import ask_redis, redis_program
from runqy_sandbox.s3_server import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    aws_environment,
    create_bucket,
    s3_program,
)
from runqy_sandbox.settings import ServerSettings, WorkerSettings
from runqy_sandbox.worker.heartbeat import worker_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Sandbox:
    """A Redis, an S3 endpoint, and a stand-in for the runqy server and worker.

    Everything runs in processes of its own, on free ports of the loopback, from
    entering the context until leaving it.

    Args:
        queues: The queues, as a YAML file for runqy or as the same words in a mapping.
            A queue with `task_code` (a directory with a main.py) is served.
        buckets: The buckets to create.
        retry_unit: The n-th retry comes after this many seconds times n to the 4th.
        lease_seconds: How long a job stays with a worker that is gone.
        concurrency: How many jobs the worker has in hand at a time.
        processes: How many task processes the worker starts a queue.
        environment: Variables for task code: what runqy's vaults are for.
        directory: Where logs and data go. Without one it is temporary.
        redis_appendonly: Whether Redis keeps its data when it is started again.
    """

    redis: Child
    s3: Child
    server: Child
    worker: Child

    def __init__(
        self,
        queues: Mapping[str, Any] | Path | str,
        *,
        buckets: Iterable[str] = ("results",),
        retry_unit: float = 10.0,
        lease_seconds: float = 120.0,
        concurrency: int = 2,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        redis_appendonly: bool = False,
    ) -> None:
        require_packages()
        if min(concurrency, processes) < 1 or min(retry_unit, lease_seconds) <= 0:
            raise SandboxError(
                "The sandbox needs concurrency and processes of at least 1, and "
                "retry_unit and lease_seconds above 0."
            )
        self._queues = read_queues(queues)
        self._buckets = tuple(buckets)
        self._retry_unit = retry_unit
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._processes = processes
        self._environment = dict(environment or {})
        self._directory = directory
        self._redis_appendonly = redis_appendonly
        self._cleanup = contextlib.ExitStack()
        self.redis_port, self.s3_port, self.server_port = 0, 0, 0
        self.admin_key = secrets.token_urlsafe(24)
        self.client_key = secrets.token_urlsafe(24)
        self.worker_key = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            # From here on, leaving the context is what cleans up.
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def redis_url(self) -> str:
        """Where Redis is."""
        return f"redis://{HOST}:{self.redis_port}/0"

    @property
    def s3_url(self) -> str:
        """Where the S3 endpoint is."""
        return f"http://{HOST}:{self.s3_port}"

    @property
    def server_url(self) -> str:
        """Where the runqy server is."""
        return f"http://{HOST}:{self.server_port}"

    def connections(
        self,
        callback_url: str | None = None,
        callback_secret: str | None = None,
        sink: str = "webhook",
    ) -> dict[str, dict[str, Any]]:
        """Return the Airflow connections to this sandbox, by their ids.

        Args:
            callback_url: Where task code finds the receiver, if there is one.
            callback_secret: The secret that signs deliveries.
            sink: Where results go by default.
        """
        extra = {
            "admin_api_key": self.admin_key,
            "redis_conn_id": "redis_default",
            "runqy_redis_conn_id": "redis_default",
            "aws_conn_id": "aws_default",
            "callback_url": callback_url,
            "callback_secret": callback_secret,
            "sink": sink,
        }
        return {
            "runqy_default": {
                "conn_type": "runqy",
                "host": self.server_url,
                "password": self.client_key,
                "extra": {k: v for k, v in extra.items() if v is not None},
            },
            "redis_default": {
                "conn_type": "redis",
                "host": HOST,
                "port": self.redis_port,
            },
            "aws_default": {
                "conn_type": "aws",
                "login": ACCESS_KEY,
                "password": SECRET_KEY,
                "extra": {"endpoint_url": self.s3_url, "region_name": REGION},
            },
        }

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.redis_port, self.s3_port, self.server_port = (
            free_port(),
            free_port(),
            free_port(),
        )
        guardian = stack.enter_context(contextlib.closing(Guardian()))
        if self._directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="runqy-sandbox-")
            directory = Path(stack.enter_context(temporary))
            guardian.remove(str(directory))
        else:
            directory = self._directory.resolve()
            directory.mkdir(parents=True, exist_ok=True)

        def child(name: str, program: Program) -> Child:
            child = Child(program, directory / f"{name}.log", guardian)
            stack.callback(child.stop)
            return child

        redis = redis_program(
            self.redis_port, directory / "redis", appendonly=self._redis_appendonly
        )
        self.redis = child("redis", redis)
        self.s3 = child("s3", s3_program(self.s3_port))
        self.server = child("server", self._server_program())
        self.worker = child("worker", self._worker_program())
        self.redis.start()
        # The rest does not wait for each other, so it comes up together.
        rest = (self.s3, self.server, self.worker)
        for each in rest:
            each.launch()
        for each in rest:
            each.wait_until_it_answers()
        for bucket in self._buckets:
            create_bucket(self.s3_port, bucket)

    def _server_program(self) -> Program:
        settings = ServerSettings(
            redis_url=self.redis_url,
            port=self.server_port,
            queues=self._queues,
            admin_key=self.admin_key,
            client_key=self.client_key,
            worker_key=self.worker_key,
        )
        port = self.server_port
        return Program(
            "runqy server",
            [sys.executable, "-m", "runqy_sandbox.server.app"],
            lambda _: ask(port, "GET", "/health") == HTTPStatus.OK,
            settings.to_environment(),
        )

    def _worker_program(self) -> Program:
        environment = {**aws_environment(self.s3_port), **self._environment}
        settings = WorkerSettings(
            redis_url=self.redis_url,
            queues=self._queues,
            environment=environment,
            retry_unit=self._retry_unit,
            lease_seconds=self._lease_seconds,
            concurrency=self._concurrency,
            processes=self._processes,
        )
        url = self.redis_url
        return Program(
            "runqy worker",
            [sys.executable, "-m", "runqy_sandbox.worker.worker"],
            lambda pid: ask_redis(url, worker_key(worker_id(pid))),
            settings.to_environment(),
        )
