"""The set of the numbers of jobs."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runqy_provider.jobs.batch.indexes import Indexes

#: The largest text that an argument of a task may be, in MySQL.
MYSQL_TEXT = 65_535


@given(st.lists(st.integers(0, 5000)), st.lists(st.integers(0, 5000)))
def test_indexes_have_what_a_set_has(added: list[int], removed: list[int]) -> None:
    indexes, model = Indexes(added), set(added) - set(removed)
    for index in removed:
        indexes.discard(index)

    assert list(indexes) == sorted(model)
    assert len(indexes) == len(model)
    assert all(index in indexes for index in model)
    assert not any(index in indexes for index in removed)
    assert Indexes.from_text(indexes.to_text()) == indexes


def test_indexes_of_half_of_many_jobs_fit_into_an_argument() -> None:
    chosen = random.Random(1).sample(range(100_000), 50_000)

    assert len(Indexes(chosen).to_text()) < MYSQL_TEXT // 2
    assert len(Indexes(range(90_000, 100_000)).to_text()) < 200
