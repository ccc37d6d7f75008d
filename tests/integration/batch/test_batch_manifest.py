"""The manifest of a batch in the inbox."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from runqy_provider.errors import BadDelivery, NotThere, TooLarge
from runqy_provider.inbox import keys
from runqy_provider.inbox.manifest import PIECE, InboxManifest
from runqy_provider.sinks.batch_result import BatchResult, results_in

if TYPE_CHECKING:
    from runqy_provider.redis_connection import RedisConnection


@pytest.fixture
def manifest(redis_settings: RedisConnection, conn_id: str) -> InboxManifest:
    return InboxManifest(redis_settings, conn_id, "batch")


def test_inbox_manifest_is_read_as_it_was_written(manifest: InboxManifest) -> None:
    data = bytes(range(256)) * (3 * PIECE // 256) + b"end"

    manifest.write(io.BytesIO(data), ttl=60)

    assert manifest.size() == len(data)
    with manifest.stream() as stream:
        assert stream.read() == data


def test_inbox_manifest_replaces_the_one_before_and_expires(
    manifest: InboxManifest, redis_url: str, conn_id: str
) -> None:
    manifest.write(io.BytesIO(b"a long one"), ttl=60)
    manifest.write(io.BytesIO(b"short"), ttl=60)

    with manifest.stream() as stream, Redis.from_url(redis_url) as redis:
        assert stream.read() == b"short"
        found = list(redis.scan_iter(f"{keys.PREFIX}:{conn_id}:*"))
        assert len(found) == 1, "nothing is left beside it"
        assert 0 < redis.ttl(found[0]) <= 60


def test_inbox_manifest_command_that_is_repeated_changes_nothing(
    manifest: InboxManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    once: Any = Redis.execute_command  # it has no types

    def twice(self: Any, *args: Any, **options: Any) -> Any:
        # As the client does if an answer is lost. A name can be changed only once.
        if args[0] != "RENAME":
            once(self, *args, **options)
        return once(self, *args, **options)

    monkeypatch.setattr(Redis, "execute_command", twice)
    manifest.write(io.BytesIO(b"once"), ttl=60)

    assert manifest.size() == 4


def test_inbox_manifest_that_is_too_large_says_what_to_do(
    manifest: InboxManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runqy_provider.inbox.manifest.MOST_BYTES", 3)

    with pytest.raises(TooLarge, match="manifest='s3://"):
        manifest.write(io.BytesIO(b"four"), ttl=60)


def test_inbox_manifest_that_has_expired_is_not_there(manifest: InboxManifest) -> None:
    with pytest.raises(NotThere, match="unread_ttl_seconds"):
        manifest.stream()


def test_manifest_whose_lines_are_repeated_is_refused() -> None:
    line = BatchResult(0, "d", 1).to_line()

    with pytest.raises(BadDelivery, match="damaged"):
        list(results_in(io.BytesIO(line + line)))


def test_manifest_that_is_a_single_result_is_refused() -> None:
    with pytest.raises(BadDelivery, match="single result"):
        list(results_in(io.BytesIO(b'{"text": "hello"}')))
