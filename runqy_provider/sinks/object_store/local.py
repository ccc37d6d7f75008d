# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``file:///folder``: a folder that workers and Airflow share."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar
from urllib.parse import unquote, urlsplit

from runqy_provider.errors import (
    BadDelivery,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkUnavailable,
)
from runqy_provider.sinks.object_store.base import Head, Listing
from runqy_provider.sinks.object_store.sink import ObjectSink
from runqy_provider.sinks.object_store.uri import check_name, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_provider.context import Access


@dataclass(frozen=True)
class FileSink(ObjectSink):
    """Results in a folder that workers and Airflow mount at the same path.

    Args:
        bucket: The folder, as an absolute path.
    """

    scheme: ClassVar[str] = "file"

    presign: bool = False

    def store(self, access: Access) -> FolderStore:  # noqa: ARG002 - needs no connection
        """Return the folder."""
        return FolderStore(self.bucket)

    def _check_bucket(self) -> None:
        if self.prefix:
            raise Misconfigured(
                f"A sink in a shared folder has no prefix ({self.prefix!r}): name the "
                f"whole folder, {self.bucket}/{self.prefix}."
            )
        path = PurePosixPath(self.bucket)
        if (
            self.bucket.startswith("//")
            or not path.is_absolute()
            or ".." in path.parts
            or str(path) != self.bucket
        ):
            raise Misconfigured(
                f"{self.bucket!r} is no absolute path. A sink in a shared folder is "
                "written file:///folder."
            )
        check_name(self.bucket)
        if self.presign:
            raise Misconfigured("Nothing can be presigned in a folder.")


#: Nothing there; or a link that leads nowhere, or round.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class FolderStore:
    """Files in a folder; a key is a path in it.

    Args:
        root: Absolute path of the folder. Nothing outside is ever opened, whatever
            links lead there.
    """

    root: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"file://{quoted(self.root.rstrip('/'))}"

    @property
    def access_hint(self) -> str:
        """What its rights come from."""
        return "the rights of Airflow's own user"

    def check(self, folder: str) -> None:  # noqa: ARG002 - it may not be there yet
        """Ask whether the folder is there and ours."""
        with _errors("use the folder", self.root):
            os.scandir(self.root).close()
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise NoAccess(f"Could not read the folder {self.root}: check its mode.")

    def list_folder(self, folder: str) -> Listing:
        """List the files right in a folder."""
        found: dict[str, float] = {}
        at = Path(self.root, folder)
        with _errors("list", str(at)):
            if not at.is_dir() and Path(self.root).is_dir():
                return Listing(found)  # the first result makes it
            with os.scandir(at) as entries:
                for entry in entries:
                    # Files in the making have a dot before their names.
                    if entry.name.startswith("."):
                        continue
                    modified = _modified(entry)
                    if modified is not None:
                        found[folder + entry.name] = modified
        return Listing(found)

    def find(self, key: str, suffix: str) -> Listing:
        """Look for a file, and for the same with a suffix."""
        found: dict[str, float] = {}
        with _errors("use the folder", self.root):
            Path(self.root).stat()
        for name in (key, key + suffix):
            with _errors("look for", f"{self.root}/{name}"):
                modified = _modified(Path(self.root, name))
                if modified is not None:
                    found[name] = modified
        return Listing(found)

    def head(self, key: str) -> Head:
        """Return what is known of a file: of what type it is, is not."""
        with _errors("read", f"{self.root}/{key}"), self._open(key) as file:
            status = os.fstat(file.fileno())
        return Head(status.st_size, status.st_mtime, None)

    def stream(self, key: str) -> BinaryIO:
        """Open a file for reading."""
        with _errors("read", f"{self.root}/{key}"):
            return self._open(key)

    def sign_put(self, key: str, seconds: int) -> None:
        """Return nothing: files have no URLs that let in."""

    def sign_get(self, key: str, seconds: int) -> None:
        """Return nothing: files have no URLs that let in."""

    def key_of(self, url: str) -> str | None:
        """Return the path in this folder that a URL, or an absolute path, means."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise BadDelivery(f"result_url is not a URL: {error}") from error
        if parts.scheme not in ("file", "") or parts.netloc:
            return None
        path = unquote(parts.path) if parts.scheme else url
        root = self.root.rstrip("/") + "/"
        if ".." in Path(path).parts or not path.startswith(root):
            return None
        return path.removeprefix(root) or None

    def _open(self, key: str) -> BinaryIO:
        """Open a file, wherever in the folder its links lead.

        Raises:
            NoAccess: It is outside the folder: a link leads there.
            FileNotFoundError: It is no file.
        """
        root = Path(self.root).resolve()
        path = Path(self.root, key).resolve(strict=True)
        if not path.is_relative_to(root):
            raise NoAccess(f"{self.root}/{key} leads out of the folder {self.root}.")
        # Step by step, and by no link any more: one may have been put there since.
        at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for part in path.relative_to(root).parts:
            try:
                # Not blocking: to open a pipe would wait for its writer.
                inner = os.open(
                    part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at
                )
            finally:
                os.close(at)
            at = inner
        if not stat.S_ISREG(os.fstat(at).st_mode):
            os.close(at)
            raise FileNotFoundError(errno.ENOENT, "it is no file")
        return os.fdopen(at, "rb")


def _modified(path: os.PathLike[str]) -> float | None:
    """Return when a file was last changed; None where there is none, or none by now."""
    try:
        status = os.stat(path)  # noqa: PTH116 - also takes what a scan yields
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    return status.st_mtime if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _errors(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotThere(
            f"Could not {what} {path}: {error.strerror}. A file:// sink needs a folder "
            "that workers and Airflow mount at the same path."
        ) from error
    except PermissionError as error:
        raise NoAccess(
            f"Could not {what} {path}: {error.strerror}. Airflow's user needs to read "
            "and list that folder."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NoAccess(
                f"Could not {what} {path}: a link was put in its way."
            ) from error
        raise SinkUnavailable(f"Could not {what} {path}: {error}") from error
