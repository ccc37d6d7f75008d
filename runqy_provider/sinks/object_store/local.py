# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``file:///folder``: a folder that workers and Airflow share."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar
from urllib.parse import unquote, urlsplit

from runqy_provider.errors import Misconfigured, NoAccess, NotThere, SinkUnavailable
from runqy_provider.sinks.object_store.base import Head, Listing
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.uri import (
    check_name,
    quoted,
    unquoted,
    url_errors,
)
from runqy_provider.sinks.options import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from runqy_provider.settings import Settings


#: Permissions of a file that is written: as by default, not those of a temporary file.
FILE_MODE = 0o644

#: Missing file, dangling symbolic link, or a loop of links.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class FileSink(ObjectSink):
    """Results in a folder that workers and Airflow mount at the same path.

    Args:
        bucket: The folder, as an absolute path.
    """

    scheme: ClassVar[str] = "file"

    presign: bool = False

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the sink that ``file:///folder`` describes."""
        parts = urlsplit(uri)
        folder = unquoted(parts.path)
        if parts.netloc or not folder.startswith("/"):
            raise Misconfigured(
                f"{uri!r} is not a valid sink: write a shared folder as file:///folder."
            )
        return cls("/" + folder.strip("/"), **options_of(uri, cls.defaults()))

    @classmethod
    def for_result(cls, uri: str) -> Self:
        """Return the folder of a file."""
        folder = uri.removeprefix("file://").rpartition("/")[0]
        return cls(unquoted(folder) or "/")

    def store(self, settings: Settings) -> LocalStore:  # noqa: ARG002 - needs no connection
        return LocalStore(self.bucket)

    def _check_bucket(self) -> None:
        if self.prefix:
            raise Misconfigured(
                f"A sink in a shared folder cannot have a prefix ({self.prefix!r}): "
                f"name the whole folder, {self.bucket}/{self.prefix}."
            )
        path = PurePosixPath(self.bucket)
        if (
            self.bucket.startswith("//")
            or not path.is_absolute()
            or ".." in path.parts
            or str(path) != self.bucket
        ):
            raise Misconfigured(
                f"{self.bucket!r} is not an absolute path. Write the sink as "
                "file:///folder."
            )
        check_name(self.bucket)
        if self.presign:
            raise Misconfigured(
                "presign=true is not possible for a folder: only object stores sign "
                "URLs. Leave the option out."
            )


@dataclass(frozen=True)
class LocalStore:
    """Files in a folder; a key is a path in it.

    Args:
        root: Absolute path of the folder. No file outside is ever opened, even if a
            link leads to it.
    """

    root: str

    @property
    def url(self) -> str:
        return f"file://{quoted(self.root.rstrip('/'))}"

    @property
    def access_hint(self) -> str:
        return "the permissions of Airflow's own user"

    def check(self, folder: str) -> None:  # noqa: ARG002 - it may not exist yet
        """Check that the root exists and can be listed."""
        with _errors("use the folder", self.root):
            os.scandir(self.root).close()
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise NoAccess(
                f"Could not read the folder {self.root}: access denied. Give Airflow's "
                "user the permissions to read and list it."
            )

    def list_folder(self, folder: str) -> Listing:
        keys: dict[str, float] = {}
        path = Path(self.root, folder)
        with _errors("list", str(path)):
            if not path.is_dir() and Path(self.root).is_dir():
                return Listing(keys)  # the first result creates it
            with os.scandir(path) as entries:
                for entry in entries:
                    # While a file is written, its name begins with a dot.
                    if entry.name.startswith("."):
                        continue
                    modified = _modified(entry)
                    if modified is not None:
                        keys[folder + entry.name] = modified
        return Listing(keys)

    def list_below(self, folder: str, most_pages: int) -> None:
        """Return None: looking for a file needs no request."""

    def find(self, key: str, suffix: str) -> Listing:
        keys: dict[str, float] = {}
        with _errors("use the folder", self.root):
            Path(self.root).stat()
        for name in (key, key + suffix):
            with _errors("look for", f"{self.root}/{name}"):
                modified = _modified(Path(self.root, name))
                if modified is not None:
                    keys[name] = modified
        return Listing(keys)

    def head(self, key: str) -> Head:
        """Return size and modification time; files have no media type."""
        with _errors("read", f"{self.root}/{key}"), self._open(key) as file:
            status = os.fstat(file.fileno())
        return Head(status.st_size, status.st_mtime, None)

    def stream(self, key: str) -> BinaryIO:
        with _errors("read", f"{self.root}/{key}"):
            return self._open(key)

    def write(self, key: str, content: BinaryIO, content_type: str) -> None:  # noqa: ARG002 - files have no media type
        """Store a file; readers never see a part of it."""
        path = Path(self.root, key)
        with _errors("write", f"{self.root}/{key}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # While a file is written, its name begins with a dot.
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    shutil.copyfileobj(content, file)
                Path(name).chmod(FILE_MODE)
                Path(name).replace(path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise

    def sign_put(self, key: str, seconds: int) -> None:
        """Return None: a folder cannot sign URLs."""

    def sign_get(self, key: str, seconds: int) -> None:
        """Return None: a folder cannot sign URLs."""

    def key_of(self, url: str) -> str | None:
        """Return the path in this folder that a URL or an absolute path names."""
        with url_errors():
            parts = urlsplit(url)
        if parts.scheme not in ("file", "") or parts.netloc:
            return None
        path = unquote(parts.path) if parts.scheme else url
        root = self.root.rstrip("/") + "/"
        if ".." in Path(path).parts or not path.startswith(root):
            return None
        return path.removeprefix(root) or None

    def _open(self, key: str) -> BinaryIO:
        """Open a file; symbolic links are followed within the folder only.

        Raises:
            NoAccess: A link leads out of the folder.
            FileNotFoundError: It does not exist, or is not a regular file.
        """
        root = Path(self.root).resolve()
        path = Path(self.root, key).resolve(strict=True)
        if not path.is_relative_to(root):
            raise NoAccess(f"{self.root}/{key} leads out of the folder {self.root}.")
        # Opened part by part without following links: since the path was resolved, a
        # link may have been put there.
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for part in path.relative_to(root).parts:
            try:
                # Non-blocking: opening a pipe would wait for its writer.
                inner = os.open(
                    part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor
                )
            finally:
                os.close(descriptor)
            descriptor = inner
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file")
        return os.fdopen(descriptor, "rb")


def _modified(path: os.PathLike[str]) -> float | None:
    """Return when a regular file was last changed; None if it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - also takes an os.DirEntry
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
    return status.st_mtime if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _errors(operation: str, path: str) -> Iterator[None]:
    """Turn errors of the operating system into ours.

    Args:
        operation: What was attempted, for the message: ``"read"``, ``"list"``.
        path: The file or folder, for the message.

    Raises:
        NotThere: It does not exist.
        NoAccess: It must not be read.
        SinkUnavailable: Any other error.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotThere(
            f"Could not {operation} {path}: {error.strerror}. A file:// sink needs a "
            "folder that workers and Airflow mount at the same path."
        ) from error
    except PermissionError as error:
        raise NoAccess(
            f"Could not {operation} {path}: {error.strerror}. Give Airflow's user "
            "the permissions to read and list that folder."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NoAccess(
                f"Could not {operation} {path}: a symbolic link was put there "
                "while it was opened. Check what writes to the folder."
            ) from error
        raise SinkUnavailable(f"Could not {operation} {path}: {error}") from error
