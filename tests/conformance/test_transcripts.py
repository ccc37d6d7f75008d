# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a real runqy was seen to do, the sandbox does: every recorded exchange."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from runqy_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent / "transcripts"
#: The queues that the recorded worker served. When api.json was made there was none.
SERVED = {"api": (), "lifecycle": ("plain", "stored"), "terminal": ("plain", "stored")}


def _cases() -> list[Any]:
    return [
        pytest.param(transcript, index, id=f"{transcript}-{index}-{entry['name']}")
        for transcript in SERVED
        for index, entry in enumerate(
            json.loads((HERE / f"{transcript}.json").read_text())
        )
    ]


def _queues(transcript: str, task_code: Path) -> dict[str, Any]:
    words = yaml.safe_load((HERE / "queues.yaml").read_text())
    for name in SERVED[transcript]:
        words["queues"][name]["deployment"]["task_code"] = str(task_code)
    return words


@pytest.fixture(scope="module")
def player(make_player: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The player of a transcript, in a fresh sandbox; one at a time."""
    task_code = tmp_path_factory.mktemp("stored")
    shutil.copy(HERE / "handler.py.txt", task_code / "main.py")
    current: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def get(transcript: str) -> Any:
            if transcript not in current:
                stack.close()
                current.clear()
                sandbox = Sandbox(_queues(transcript, task_code), buckets=())
                player = make_player(transcript, stack.enter_context(sandbox))
                stack.callback(player.close)
                current[transcript] = player
            return current[transcript]

        yield get


@pytest.mark.parametrize(("transcript", "index"), _cases())
def test_entry(player: Any, transcript: str, index: int) -> None:
    player(transcript).play_to(index)
    if index == len(player(transcript).entries) - 1:
        assert player(transcript).played == len(player(transcript).entries)


def test_no_transcript_and_no_entry_is_left_out() -> None:
    found = {path.stem for path in HERE.glob("*.json")}
    assert found == set(SERVED)
    assert len(_cases()) == 40 + 25 + 17
