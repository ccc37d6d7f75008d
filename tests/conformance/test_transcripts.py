# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests that the sandbox behaves as a real runqy was recorded to behave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.player import TRANSCRIPTS, read_entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.player import Player

NAMES = ("api", "lifecycle", "terminal")
CASES: list[Any] = [
    pytest.param(transcript, index, id=f"{transcript}-{index}-{entry['name']}")
    for transcript in NAMES
    for index, entry in enumerate(read_entries(transcript))
]


@pytest.mark.parametrize(("transcript", "index"), CASES)
def test_sandbox_recorded_exchange_is_the_same(
    get_player: Callable[[str], Player], transcript: str, index: int
) -> None:
    # An entry depends on those before it, so they are played first.
    get_player(transcript).play_to(index)


def test_cases_include_every_entry_of_every_transcript() -> None:
    assert {path.stem for path in TRANSCRIPTS.glob("*.json")} == set(NAMES)
    assert len(CASES) == 40 + 25 + 17
