# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A Redis and its replica behind one address, which leads to the primary."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from redis import Redis

from devtools.servers.switch import Switch
from runqy_sandbox.process.child import Child
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import redis_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RedisPair:
    """Two servers; new connections to ``port`` lead to the primary.

    Args:
        ports: Of the primary and the replica.
        switch: What leads to one of them.
    """

    def __init__(self, ports: tuple[int, int], switch: Any) -> None:
        self._ports, self._switch = ports, switch
        self.port: int = switch.port
        self._follow(ports[1], ports[0])

    def fail_over(self) -> None:
        """Make the replica the primary; connections that are open stay where they are.

        Nothing is lost by it: what was written has been copied by then.
        """
        old, new = self._ports
        with Redis(port=old) as redis:
            redis.wait(1, 10_000)
        with Redis(port=new) as redis:
            redis.replicaof("NO", "ONE")
        self._follow(old, new)
        self._switch.leads_to = new
        self._ports = new, old

    @staticmethod
    def _follow(replica: int, primary: int) -> None:
        with Redis(port=replica) as redis:
            redis.replicaof("127.0.0.1", str(primary))
        with Redis(port=primary) as redis:
            # Until the replica has copied this, it has copied all before.
            redis.set("faults:copied", "1")
            if not redis.wait(1, 30_000):
                raise TimeoutError("the replica does not follow its primary")


@contextlib.contextmanager
def running_redis_pair(directory: Path) -> Iterator[RedisPair]:
    """Start both, and end them."""
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        ports = []
        for name in ("primary", "replica"):
            port = free_port()
            folder = directory / name
            folder.mkdir(parents=True)
            program = redis_program(port, folder, appendonly=False)
            child = Child(program, directory / f"{name}.log", watchdog)
            child.start()
            stack.callback(child.stop)
            ports.append(port)
        led = stack.enter_context(Switch(ports[0]))
        yield RedisPair((ports[0], ports[1]), led)
