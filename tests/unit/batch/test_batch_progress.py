"""How far a batch is, and the ids of its deliveries."""

from __future__ import annotations

import json

from runqy_provider.jobs.batch.progress import MOST_REASONS, BatchProgress, IndexSet


def batch(total: int = 10) -> BatchProgress:
    return BatchProgress(
        "b",
        "webhook",
        "q.default",
        chooses_id=True,
        total=total,
        digest="digest",
        expires=0.0,
    )


def enqueue(progress: BatchProgress) -> list[int]:
    """Enqueue all that is left, and return its numbers."""
    indexes = list(progress.to_enqueue())
    for index in indexes:
        progress.on_enqueued(index)
    return indexes


def test_progress_counts_each_job_once() -> None:
    progress = batch()
    enqueue(progress)
    progress.on_ended(0)
    progress.on_ended(1, "no voice")
    progress.on_ended(1, "no voice at all")

    assert str(progress) == "1 of 10 jobs completed, 1 failed, 8 in flight"
    assert progress.reasons == {1: "no voice at all"}


def test_progress_as_json_is_read_back() -> None:
    progress = batch()
    enqueue(progress)
    progress.on_ended(3, "no voice")
    progress.run_failed_again()

    stored = json.loads(json.dumps(progress.to_json()))

    assert BatchProgress.from_json(stored) == progress


def test_progress_delivery_ids_are_new_for_each_round() -> None:
    progress = batch()
    enqueue(progress)
    first = progress.delivery_id(3)
    ids = {first}
    for number in (1, 2, 3):
        for index in list(progress.outstanding):
            progress.on_ended(index, "no voice" if index == 3 else None)
        progress.run_failed_again()
        assert progress.delivery_id(3) == f"{first}-{number}"
        assert enqueue(progress) == [3]
        ids.add(progress.delivery_id(3))
    assert len(ids) == 4
    assert progress.delivery_id(4) == "b-0000004"


def test_progress_job_that_was_not_enqueued_again_keeps_its_id() -> None:
    progress = batch()
    enqueue(progress)
    for index in list(progress.outstanding):
        progress.on_ended(index, "no voice" if index in {2, 3} else None)
    progress.run_failed_again()
    progress.on_enqueued(2)
    before = progress.delivery_id(3)
    progress.on_ended(2, "still no voice")

    progress.run_failed_again()

    assert progress.delivery_id(3) == before, "it may be enqueued already"
    assert progress.delivery_id(2).endswith("-2")
    assert progress.again == IndexSet([2, 3])


def test_progress_of_a_trigger_is_small_and_is_taken_back() -> None:
    progress = batch(100_000)
    enqueue(progress)
    for index in range(90_000):
        progress.on_ended(index, "no voice" if index % 2 else None)
    progress.run_failed_again()
    for index in range(1, 20_000, 2):
        progress.on_enqueued(index)

    sent = json.dumps(progress.in_flight().to_json())
    waited = BatchProgress.from_json(json.loads(sent))
    assert len(sent) < 20_000
    assert str(waited) == str(progress)
    assert waited.delivery_id(1) == progress.delivery_id(1)
    waited.on_ended(1)
    waited.on_ended(3, "still no voice")
    progress.update(waited)

    assert str(progress) == str(waited)
    assert 1 not in progress.outstanding
    assert list(progress.failed) == [3]
    assert progress.reasons == {3: "still no voice"}


def test_progress_event_of_an_older_trigger_changes_nothing_that_is_newer() -> None:
    progress = batch()
    enqueue(progress)
    older = progress.in_flight()
    progress.on_ended(0)
    older.on_ended(0, "no voice")

    progress.update(older)

    assert (progress.completed, progress.failures) == (1, 0)


def test_progress_keeps_few_reasons() -> None:
    progress = batch(1000)
    enqueue(progress)
    for index in range(1000):
        progress.on_ended(index, "x" * 10_000)

    assert len(progress.reasons) == MOST_REASONS
    assert len(json.dumps(progress.to_json())) < 10_000


def test_progress_chunk_that_was_refused_is_as_if_never_enqueued() -> None:
    progress = batch()
    for index in range(6):
        progress.on_enqueued(index)
        progress.on_ended(index, "no voice" if index in {2, 4} else None)
    progress.run_failed_again()
    before, enqueued = progress.to_json(), progress.enqueued
    outstanding = progress.outstanding

    chunk = enqueue(progress)
    progress.on_refused(chunk, enqueued)

    assert chunk == [2, 4, 6, 7, 8, 9]
    assert list(progress.to_enqueue()) == chunk
    assert progress.outstanding is outstanding
    assert BatchProgress.from_json(progress.to_json()) == BatchProgress.from_json(
        before
    )
