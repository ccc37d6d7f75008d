"""One Redis with options of its own, and functions that wait for a state of several."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import HOST, free_port
from runqy_sandbox.redis_server import redis_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runqy_sandbox.process.watchdog import Watchdog

#: Seconds within which servers must reach a state; a busy machine is slow.
LIMIT = 120.0

#: A node of a cluster listens for other nodes on a second port, higher by this number.
BUS_OFFSET = 10_000


@dataclass(frozen=True)
class RedisNode:
    """A Redis, or a Sentinel.

    Attributes:
        port: Where it listens, on the loopback.
        child: Its process, which can be killed and started again.
        login: Arguments for a redis-py client.
    """

    port: int
    child: Child
    login: Mapping[str, Any]

    @contextmanager
    def connect(self) -> Iterator[Redis]:
        """Open a client as the user that may do everything."""
        with Redis(HOST, self.port, socket_timeout=10, **self.login) as redis:
            yield redis

    def ask(self, *command: str) -> Any:
        """Return the answer to a command; None if it does not answer."""
        try:
            with self.connect() as redis:
                execute: Any = redis.execute_command  # it has no types
                return execute(*command)
        except RedisError:
            return None


def make_node(
    directory: Path,
    watchdog: Watchdog,
    *options: str,
    port: int | None = None,
    login: Mapping[str, Any] | None = None,
    tls: bool = False,
) -> RedisNode:
    """Return a node that is not started yet.

    Args:
        directory: For its data and its log.
        watchdog: Ends it if this process is killed.
        options: More options of its command line.
        port: Its port; by default a free one.
        login: For ``RedisNode.login``; by default the user without a password.
        tls: Whether it accepts only TLS.
    """
    port, login = port or free_port(), login or {}
    program = redis_program(port, directory, appendonly=False)

    def responds(_pid: int) -> bool:
        try:
            with Redis(HOST, port, socket_timeout=1, **login) as redis:
                return bool(redis.ping())
        except RedisError:
            return False

    command = [*program.command, *options]
    if tls:
        command += ["--tls-port", str(port), "--port", "0"]
    started = Program(program.name, command, responds)
    return RedisNode(port, Child(started, directory / "log", watchdog), login)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until servers have reached a state.

    Raises:
        TimeoutError: They have not, in two minutes.
    """
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Not within {LIMIT:.0f} s: {what}")
        time.sleep(0.05)
