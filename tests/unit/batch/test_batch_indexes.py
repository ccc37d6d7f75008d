"""The set of the numbers of jobs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runqy_provider.jobs.batch.progress import IndexSet

if TYPE_CHECKING:
    import pytest

#: The largest text that an argument of a task may be, in MySQL.
MYSQL_TEXT = 65_535


@given(st.lists(st.integers(0, 5000)), st.lists(st.integers(0, 5000)))
def test_indexes_have_what_a_set_has(added: list[int], removed: list[int]) -> None:
    indexes, model = IndexSet(added), set(added) - set(removed)
    for index in removed:
        indexes.discard(index)

    assert list(indexes) == sorted(model)
    assert len(indexes) == len(model)
    assert all(index in indexes for index in model)
    assert not any(index in indexes for index in removed)
    assert IndexSet.from_text(indexes.to_text()) == indexes


def test_indexes_of_half_of_many_jobs_fit_into_an_argument() -> None:
    chosen = random.Random(1).sample(range(100_000), 50_000)

    assert len(IndexSet(chosen).to_text()) < MYSQL_TEXT // 2
    assert len(IndexSet(range(90_000, 100_000)).to_text()) < 200


def test_index_set_copy_is_independent_and_not_by_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(IndexSet, "from_text")
    indexes = IndexSet([1, 3, 900])

    copied = indexes.copy()
    copied.discard(3)
    copied.add(5000)

    assert (list(indexes), len(indexes)) == ([1, 3, 900], 3)
    assert (list(copied), len(copied)) == ([1, 900, 5000], 3)
