# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The whole sandbox as one context manager, for demos and for tests of DAGs."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runqy_sandbox.asynq.keys import worker_key
from runqy_sandbox.errors import SandboxError
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import HOST, free_port, http_status
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.queues import parse_queues, read_queues
from runqy_sandbox.redis_server import redis_program, redis_responds, redis_url
from runqy_sandbox.s3_server import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    aws_environment,
    create_bucket,
    s3_program,
    s3_url,
)
from runqy_sandbox.settings import ServerSettings, WorkerSettings
from runqy_sandbox.worker.heartbeat import served_queues, worker_id

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self

log = logging.getLogger("runqy.sandbox")

#: What has a port of its own.
PORTS = ("redis", "s3", "server")


class Sandbox:
    """Redis, an S3 endpoint, and stand-ins for the runqy server and worker.

    Each is a process of its own on a free port of the loopback interface. It starts
    when the context is entered, and ends when the context is left::

        with Sandbox("queues.yaml") as sandbox:
            print(sandbox.server_url, sandbox.client_key)

    A queue whose code does not start is not served: an error with the reason is logged,
    and the jobs of that queue stay pending.

    Args:
        queues: The queues: the path of a YAML file for runqy, or a mapping with the
            same content. The worker serves the queues that have ``task_code``, the
            path of a directory with a ``main.py``.
        buckets: The names of the S3 buckets to create.
        retry_unit: Retry n of a job comes after this many seconds times n⁴.
        lease_seconds: How long a job is reserved for a worker that does not respond,
            in seconds.
        concurrency: How many jobs the worker runs at a time.
        processes: How many task processes the worker starts per queue.
        environment: Environment variables for task code, in place of runqy's vaults.
        directory: The directory for logs and data. The default is a temporary one,
            which is removed at the end.
        redis_appendonly: Whether Redis keeps its data when it is started again.
        ports: Ports by name: ``redis``, ``s3`` and ``server``; a free one if it is
            None or missing.

    Attributes:
        redis: The Redis process.
        s3: The process of the S3 endpoint.
        server: The process of the runqy server.
        worker: The process of the runqy worker; its log has the output of task code.
        admin_key: The API key of an admin.
        client_key: The API key of a client, which enqueues jobs.
        worker_key: The API key of a worker.

    Raises:
        SandboxError: An argument is not valid, a process did not start, or the code of
            no queue starts.
    """

    redis: Child
    s3: Child
    server: Child
    worker: Child

    def __init__(
        self,
        queues: Mapping[str, Any] | os.PathLike[str] | str,
        *,
        buckets: Iterable[str] = ("results",),
        retry_unit: float = 10.0,
        lease_seconds: float = 120.0,
        concurrency: int = 2,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        directory: os.PathLike[str] | str | None = None,
        redis_appendonly: bool = False,
        ports: Mapping[str, int | None] | None = None,
    ) -> None:
        if min(concurrency, processes) < 1 or min(retry_unit, lease_seconds) <= 0:
            raise SandboxError(
                "The sandbox needs a concurrency and processes of at least 1, and a "
                "retry_unit and lease_seconds greater than 0."
            )
        self._queues = read_queues(queues)
        self._buckets = tuple(buckets)
        self._retry_unit = retry_unit
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._processes = processes
        self._environment = dict(environment or {})
        self._directory = None if directory is None else Path(directory)
        self._redis_appendonly = redis_appendonly
        self._ports = dict(ports or {})
        self._cleanup = contextlib.ExitStack()
        self.redis_port, self.s3_port, self.server_port = 0, 0, 0
        self.admin_key = secrets.token_urlsafe(24)
        self.client_key = secrets.token_urlsafe(24)
        self.worker_key = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            # From here on, ``__exit__`` cleans up.
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def redis_url(self) -> str:
        """Where Redis is: ``redis://127.0.0.1:PORT/0``."""
        return redis_url(self.redis_port)

    @property
    def s3_url(self) -> str:
        """Where the S3 endpoint is, over plain HTTP."""
        return s3_url(self.s3_port)

    @property
    def server_url(self) -> str:
        """Where runqy's API is, for the field *Server URL* of a connection."""
        return f"http://{HOST}:{self.server_port}"

    def connections(
        self,
        callback_url: str | None = None,
        callback_secret: str | None = None,
        sink: str = "webhook",
    ) -> dict[str, dict[str, Any]]:
        """Return the Airflow connections to this sandbox, by connection id.

        Args:
            callback_url: The URL at which task code reaches the receiver, if any.
            callback_secret: The secret that signs callback URLs.
            sink: The default sink of the runqy connection.
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
            self._ports.get(name) or free_port() for name in PORTS
        )
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        if self._directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="runqy-sandbox-")
            directory = Path(stack.enter_context(temporary))
            watchdog.remove(str(directory))
        else:
            directory = self._directory.resolve()
            directory.mkdir(parents=True, exist_ok=True)

        def child(name: str, program: Program) -> Child:
            child = Child(program, directory / f"{name}.log", watchdog)
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
        # The others do not depend on each other, so they start at the same time.
        others = (self.s3, self.server, self.worker)
        for other in others:
            other.launch()
        for other in others:
            other.wait_until_ready()
        for bucket in self._buckets:
            create_bucket(self.s3_port, bucket)
        self._report_queues_not_served()

    def _report_queues_not_served(self) -> None:
        served = served_queues(self.redis_url, self.worker.pid)
        missing = [
            queue.name
            for queue in parse_queues(self._queues).served
            if not served.issuperset(sub.name for sub in queue.sub_queues)
        ]
        if missing:
            log.error(
                "The sandbox's worker does not serve %s, because task code did not "
                "start: jobs of these queues stay pending. Correct the code, and start "
                "the sandbox again. %s",
                ", ".join(missing),
                self.worker.describe_log(),
            )

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
            lambda _: http_status(port, "GET", "/health") == HTTPStatus.OK,
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
            lambda pid: redis_responds(url, worker_key(worker_id(pid))),
            settings.to_environment(),
        )
