# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: players of transcripts, each with a sandbox of its own."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from runqy_sandbox.sandbox import Sandbox
from tests.conformance.player import TRANSCRIPTS, Player

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def _queues(transcript: str, task_code: Path) -> dict[str, Any]:
    """Return the queues of the recorded server, with task code for those served."""
    config: dict[str, Any] = yaml.safe_load((TRANSCRIPTS / "queues.yaml").read_text())
    # When api.json was recorded, no worker was running.
    served = () if transcript == "api" else ("plain", "stored")
    for name in served:
        config["queues"][name]["deployment"]["task_code"] = str(task_code)
    return config


@pytest.fixture(scope="module")
def get_player(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Player]]:
    """Returns the player of a transcript; a new sandbox replaces the previous one."""
    task_code = tmp_path_factory.mktemp("task-code")
    shutil.copy(TRANSCRIPTS / "handler.py.txt", task_code / "main.py")
    current: dict[str, Player] = {}
    with contextlib.ExitStack() as stack:

        def get(transcript: str) -> Player:
            if transcript not in current:
                stack.close()
                current.clear()
                sandbox = Sandbox(_queues(transcript, task_code), buckets=())
                player = Player(transcript, stack.enter_context(sandbox))
                stack.callback(player.close)
                current[transcript] = player
            return current[transcript]

        yield get
