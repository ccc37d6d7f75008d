"""A folder whose files change while it is read."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import Listing
from runqy_provider.sinks.object_store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1")
    return LocalStore(str(tmp_path))


def test_folder_file_removed_while_listing_is_left_out(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    @contextmanager
    def scandir_then_rename(folder: Path) -> Iterator[Any]:
        with scandir(folder) as found:
            entries = list(found)
        (tmp_path / "b").rename(tmp_path / "later")
        yield iter(entries)

    monkeypatch.setattr(os, "scandir", scandir_then_rename)

    assert set(store.list_folder("").keys) == {"a", "c"}


def test_folder_file_removed_while_looking_is_not_found(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def is_file_then_remove(path: Path) -> bool:
        exists = is_file(path)
        path.unlink(missing_ok=True)
        return exists

    monkeypatch.setattr(Path, "is_file", is_file_then_remove)
    (tmp_path / "a").unlink()

    assert store.find("a", ".failed.json") == Listing({})
    assert set(store.find("b", ".failed.json").keys) == {"b"}


def test_folder_temporary_files_and_folders_are_left_out(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / ".abcdef").write_bytes(b"incomplete")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    assert set(store.list_folder("").keys) == {"a", "b", "c"}


def test_folder_link_created_while_opening_is_not_followed(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task code can write to the folder, but must not make Airflow read other files."""
    secret = tmp_path.parent / "secret"
    secret.write_bytes(b"a secret of Airflow")
    real = os.open

    def replace_then_open(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "a":
            (tmp_path / "a").unlink(missing_ok=True)
            (tmp_path / "a").symlink_to(secret)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", replace_then_open)

    with pytest.raises(NoAccess, match="a symbolic link was put there"):
        store.stream("a")


def test_folder_link_within_folder_is_followed(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "latest").symlink_to(tmp_path / "a")

    assert store.head("inner/latest").size == 1
    with store.stream("inner/latest") as file:
        assert file.read() == b"1"


def test_folder_pipe_is_not_opened(store: LocalStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(NotThere, match="not a regular file"):
        store.stream("pipe")


class BrokenAfter(io.BytesIO):
    """Content whose second read fails, as that of an object store may."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("the store closed the connection")
        return super().read(size)


def test_folder_write_that_fails_leaves_nothing_behind(
    store: LocalStore, tmp_path: Path
) -> None:
    with pytest.raises(SinkUnavailable):
        store.write("d", BrokenAfter(b"half of it"), "application/json")

    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]  # noqa: PTH208 - names
