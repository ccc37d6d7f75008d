"""A batch whose jobs have ended, while its sink is unavailable for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runqy_provider.errors import SinkUnavailable
from runqy_provider.jobs.batch.manifest import BatchManifest
from tests.integration.batch.conftest import batch_of, numbers, run_to_end

if TYPE_CHECKING:
    from runqy_provider.models import Reference

pytestmark = pytest.mark.usefixtures("no_settling", "short_intervals", "connect")


def test_batch_manifest_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write = BatchManifest.write
    failures: list[SinkUnavailable] = []

    def write_the_second_time(self: BatchManifest, sink: str) -> Reference:
        if not failures:
            failures.append(SinkUnavailable("Redis is away."))
            raise failures[0]
        return write(self, sink)

    monkeypatch.setattr(BatchManifest, "write", write_the_second_time)

    assert run_to_end(batch_of(numbers(3))).value == [0, 1, 2]
    assert len(failures) == 1


def test_batch_deliveries_that_cannot_be_forgotten_fail_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forget(_self: BatchManifest, _manifest: Reference) -> None:
        raise SinkUnavailable("Redis is away.")

    monkeypatch.setattr(BatchManifest, "forget", forget)

    assert run_to_end(batch_of(numbers(3))).value == [0, 1, 2]
