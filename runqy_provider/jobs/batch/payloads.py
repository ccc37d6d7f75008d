# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The payloads of a batch, checked and written to a file of their own.

They come as a list, from a generator, from an XCom that is fetched item by item, or
from an object with one line per payload. So each process reads them once, in order, and
enqueues them from the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from runqy_provider.client.api import MAX_BODY
from runqy_provider.client.models import plain_payload
from runqy_provider.errors import InvalidPayload, PayloadTooLarge
from runqy_provider.hooks.result import RunqyResultHook
from runqy_provider.models import looks_like_reference
from runqy_provider.sinks.batch_result import lines_of
from runqy_provider.sinks.registry import sink_for_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from runqy_provider.settings import Settings

log = logging.getLogger(__name__)

#: The most bytes of a payload: the delivery request is added to it.
MOST_BYTES = MAX_BODY - 64 * 1024

#: Bytes up to which the file is in memory.
IN_MEMORY = 1024 * 1024


class NumberedPayload(NamedTuple):
    """A payload, its number from 0, and how many bytes it has as JSON."""

    number: int
    payload: dict[str, Any]
    size: int


def scratch_file() -> BinaryIO:
    """Return a file for bytes that only this process needs; closing it deletes it.

    It is in memory if it is small, or if no folder for temporary files is writable.
    """
    try:
        with tempfile.TemporaryFile():
            return cast("BinaryIO", tempfile.SpooledTemporaryFile(IN_MEMORY))
    except OSError as error:
        log.warning(
            "The batch is kept in memory, as no folder for temporary files can be "
            "written to (%s). For large batches, set TMPDIR to one that can.",
            error,
        )
        return io.BytesIO()


class Payloads:
    """The payloads of a batch as lines of JSON; use it as a context manager.

    Attributes:
        runqy_queue: The queue.
        total: How many there are.
        digest: Digest that is equal for the same payloads in the same order.
    """

    def __init__(self, runqy_queue: str) -> None:
        self._file = scratch_file()
        self.runqy_queue = runqy_queue
        self._hash = hashlib.sha256()
        self.total = 0

    @classmethod
    def read(
        cls,
        given: Any,
        runqy_queue: str,
        settings: Settings,
        *,
        may_be_uri: bool,
    ) -> Self:
        """Read and check all payloads of a task.

        Args:
            given: A list or another iterable of payloads; a text that is a JSON list;
                or the URI of, or a reference to, an object with one payload per line.
            runqy_queue: The queue, for messages.
            settings: The runqy connection, by which an object is opened.
            may_be_uri: Whether a text may be the URI of an object. A text from another
                task may not: it could name any file.

        Raises:
            InvalidPayload: One is not valid; the message says which.
            SinkError: The object cannot be read.
        """
        payloads = cls(runqy_queue)
        try:
            for payload in _each(given, settings, may_be_uri=may_be_uri):
                payloads._add(payload)
        except BaseException:
            payloads.close()
            raise
        return payloads

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def numbered(self, wanted: Iterable[int]) -> Iterator[NumberedPayload]:
        """Yield payloads with their numbers.

        Args:
            wanted: The numbers, in ascending order.
        """
        self._file.seek(0)
        lines = enumerate(self._file)
        for index in wanted:
            line = next(line for number, line in lines if number == index)
            yield NumberedPayload(index, json.loads(line), len(line))

    def _add(self, payload: Any) -> None:
        try:
            plain = plain_payload(payload, self.runqy_queue)
            # Not as ASCII, so that a text that is not valid Unicode is refused here.
            text = json.dumps(
                plain, allow_nan=False, ensure_ascii=False, sort_keys=True
            )
            line = text.encode() + b"\n"
        except (InvalidPayload, ValueError) as error:
            raise InvalidPayload(
                f"Payload number {self.total} (from 0) is not valid, and nothing was "
                f"enqueued. {error}"
            ) from error
        if len(line) > MOST_BYTES:
            raise PayloadTooLarge(
                f"Payload number {self.total} (from 0) has {len(line):,} bytes, and "
                f"nothing was enqueued. At most {MOST_BYTES:,} are accepted. Put large "
                "inputs into an object store and their URI into the payload."
            )
        self._file.write(line)
        self._hash.update(line)
        self.total += 1


def _each(given: Any, settings: Settings, *, may_be_uri: bool) -> Iterator[Any]:
    if isinstance(given, str):
        given = given.strip()
        if may_be_uri:
            sink = sink_for_result(given).bind(settings)
            with sink.open(given).stream() as stream:
                yield from _lines(stream)
            return
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidPayload(
                f"payloads is a text that is not JSON ({error}). In a template, end "
                "the expression with the filter tojson. The URI of an object must be "
                "written in the DAG: payloads='s3://bucket/{{ ds }}.jsonl'."
            ) from error
    if looks_like_reference(given):
        with RunqyResultHook.from_settings(settings).read(given).stream() as stream:
            yield from _lines(stream)
    elif isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)):
        yield from given
    else:
        raise InvalidPayload(
            f"payloads is a {type(given).__name__}. It must be a list, another "
            "iterable, a text with a JSON list, or the URI of an object with one "
            "payload per line: payloads='s3://bucket/inputs.jsonl'."
        )


def _lines(stream: Any) -> Iterator[Any]:
    """Yield the JSON objects of the lines of an object; empty lines are left out."""
    number = 0
    try:
        for line in lines_of(stream):
            number += 1
            if line.strip():
                yield json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"Line {number} of the payloads, or the one after it, is not JSON: "
            f"{error}. Write one JSON object per line."
        ) from error
