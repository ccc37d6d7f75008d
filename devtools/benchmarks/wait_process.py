# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A process that runs waits as a triggerer does, and says when each one ends.

All waits are in one event loop, each with the greenback portal that Airflow's triggerer
gives to a trigger. Its output has a line of JSON when all waits have begun, one for
each event, and one for each long pause by the garbage collector after that.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import greenback

from devtools.benchmarks.kinds import make
from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: Triggers started at once, and seconds in between: as fast as a restarted triggerer
#: without other work.
BATCH, PAUSE = 20, 0.01

#: The event loop counts as idle after this many seconds without a block of CALM_BLOCK.
CALM, CALM_BLOCK, TICK = 1.5, 0.02, 0.005

#: Seconds from which a pause by the garbage collector is reported.
LONG_PAUSE = 0.001

#: Seconds that starting may take, and for which nothing may happen at all.
START_LIMIT, STUCK_AFTER = 120.0, 30.0


@dataclass
class Event:
    """The event of one wait.

    Attributes:
        name: What the wait waited for.
        delivery_id: What arrived, by its event; empty if the event does not say.
        at: When it came, by the monotonic clock, which all processes share.
    """

    name: str
    delivery_id: str
    at: float


@dataclass
class WaitProcess:
    """A running process, and the events that came from it.

    Attributes:
        process: The process.
        events: Its events until now.
        pauses: Seconds of each long pause by the garbage collector.
    """

    process: subprocess.Popen[str]
    events: list[Event] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    _is_ready: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Read its output until its end; for a thread."""
        for line in self.process.stdout or ():
            if line.startswith('{"ready"'):
                self._is_ready.set()
            elif line.startswith('{"name"'):
                self.events.append(Event(**json.loads(line)))
            elif line.startswith('{"pause"'):
                self.pauses.append(json.loads(line)["pause"])

    def wait_until_ready(self) -> None:
        """Wait until all waits have begun.

        Raises:
            RuntimeError: It takes too long.
        """
        if not self._is_ready.wait(START_LIMIT):
            raise RuntimeError("the waits have not begun in time")


@contextmanager
def running_waits(
    kind: str, names: Sequence[str], environment: Mapping[str, str]
) -> Iterator[WaitProcess]:
    """Start a process with these waits.

    Args:
        kind: Their kind; see ``kinds``.
        names: What they wait for.
        environment: Variables, with Airflow's connections.
    """
    command = [sys.executable, "-W", "ignore", "-m", __name__, kind]
    with ExitStack() as stack:
        listed = stack.enter_context(tempfile.TemporaryFile("w+"))
        json.dump(list(names), listed)
        listed.seek(0)
        process = stack.enter_context(
            run_with_watchdog(
                command,
                stdin=listed,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
        )
        waits = WaitProcess(process)
        thread = threading.Thread(target=waits.read, daemon=True)
        thread.start()
        yield waits
    thread.join(5)


def wait_while_changing(count: Callable[[], int], wanted: int) -> None:
    """Wait until a count has reached what is wanted, or has not changed for long."""
    last, end = count(), time.monotonic() + STUCK_AFTER
    while last < wanted and time.monotonic() < end:
        time.sleep(0.02)
        if (now := count()) != last:
            last, end = now, time.monotonic() + STUCK_AFTER


async def start(kind: str, names: Sequence[str], limit: float) -> list[Any]:
    """Start waits at the pace of a triggerer; those for which there is time.

    Args:
        kind: Their kind.
        names: What they wait for.
        limit: The most seconds.

    Returns:
        Their tasks, each of which returns the payload of its event.
    """
    end, tasks = time.monotonic() + limit, []
    for first in range(0, len(names), BATCH):
        tasks += [
            asyncio.create_task(first_event(kind, name))
            for name in names[first : first + BATCH]
        ]
        if time.monotonic() > end:
            break
        await asyncio.sleep(PAUSE)
    return tasks


async def first_event(kind: str, name: str) -> Any:
    """Run a trigger as the triggerer does, and return the payload of its event."""
    await greenback.ensure_portal()
    async for event in make(kind, name).run():
        return event.payload
    raise AssertionError


async def calm_down(limit: float) -> None:
    """Wait until the event loop has finished the start."""
    end = time.monotonic() + limit
    calm_since = time.monotonic()
    while time.monotonic() < min(end, calm_since + CALM):
        began = time.monotonic()
        await asyncio.sleep(TICK)
        if time.monotonic() - began - TICK > CALM_BLOCK:
            calm_since = time.monotonic()


async def _run(kind: str, names: list[str]) -> None:
    tasks = await start(kind, names, START_LIMIT)
    for name, task in zip(names, tasks, strict=True):
        task.add_done_callback(lambda done, name=name: _report(name, done))
    await calm_down(START_LIMIT / 2)
    print(json.dumps({"ready": len(tasks)}), flush=True)
    gc.callbacks.append(_CollectorWatch())
    await asyncio.gather(*tasks)


class _CollectorWatch:
    """Reports the pauses of the garbage collector that a wait would notice."""

    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic()
            return
        pause = time.monotonic() - self._began
        if pause > LONG_PAUSE:
            print(json.dumps({"pause": pause}), flush=True)


def _report(name: str, task: asyncio.Task[Any]) -> None:
    at = time.monotonic()
    payload = task.result()
    says = payload.get("delivery_id", "") if isinstance(payload, dict) else ""
    line = {"name": name, "delivery_id": says, "at": at}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], json.load(sys.stdin)))
