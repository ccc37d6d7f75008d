"""A folder in which others write while it is listed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runqy_provider.errors import NoAccess, NotThere
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
    def and_rename(folder: Path) -> Iterator[Any]:
        with scandir(folder) as found:
            entries = list(found)
        (tmp_path / "b").rename(tmp_path / "later")
        yield iter(entries)

    monkeypatch.setattr(os, "scandir", and_rename)

    assert set(store.list_folder("").keys) == {"a", "c"}


def test_folder_file_removed_while_looking_is_not_found(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def and_remove(path: Path) -> bool:
        is_there = is_file(path)
        path.unlink(missing_ok=True)
        return is_there

    monkeypatch.setattr(Path, "is_file", and_remove)
    (tmp_path / "a").unlink()

    assert store.find("a", ".failed.json") == Listing({})
    assert set(store.find("b", ".failed.json").keys) == {"b"}


def test_folder_temporary_files_and_folders_are_left_out(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / ".abcdef").write_bytes(b"half of i")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path / "round")

    assert set(store.list_folder("").keys) == {"a", "b", "c"}


def test_folder_link_created_while_opening_is_not_followed(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task code may write there, and must not choose what Airflow's user reads."""
    secret = tmp_path.parent / "secret"
    secret.write_bytes(b"of Airflow")
    real = os.open

    def swap_first(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "a":
            (tmp_path / "a").unlink(missing_ok=True)
            (tmp_path / "a").symlink_to(secret)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap_first)

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
