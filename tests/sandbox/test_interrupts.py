# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a process is being started leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runqy_sandbox.process.interrupts import hold_interrupts
from runqy_sandbox.process.watchdog import run_with_watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_that_is_held_comes_at_the_end_of_the_context() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), hold_interrupts():  # noqa: PT012 - what comes after the signal is tested
        signal.raise_signal(signal.SIGINT)
        steps.append("after the signal")

    assert steps == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_handler_is_restored_after_an_error() -> None:
    with pytest.raises(LookupError), hold_interrupts():
        raise LookupError

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupts_of_another_thread_are_left_alone() -> None:
    handlers = []

    def hold() -> None:
        with hold_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()

    assert handlers == [signal.default_int_handler]


def test_interrupt_while_a_process_starts_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[Any]] = []

    class Interrupted(subprocess.Popen[Any]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(command, **options)
            if command is SLEEP:
                started.append(self)
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), run_with_watchdog(SLEEP):
        pytest.fail("the signal was lost")

    assert started[0].poll() is not None
