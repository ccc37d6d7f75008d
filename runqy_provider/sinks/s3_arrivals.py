# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A bucket as a source for a waiter: one listing of a folder for all waits in it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import SinkError, SinkUnavailable
from runqy_provider.sinks.s3_client import s3_client, s3_errors
from runqy_provider.waiting.arrival import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

log = logging.getLogger(__name__)

SCHEME = "s3://"

#: What a failure's delivery is stored under: the key of the result, and this.
FAILED_SUFFIX = ".failed.json"


def address(bucket: str, key: str) -> str:
    """Return ``s3://bucket/key``."""
    return f"{SCHEME}{bucket}/{key}"


def split_address(text: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``."""
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    return bucket, key


class S3Arrivals:
    """Objects that appear in S3; addresses are ``s3://bucket/key``.

    Args:
        aws_conn_id: The AWS connection.
    """

    def __init__(self, aws_conn_id: str) -> None:
        self._aws_conn_id = aws_conn_id
        # How many pages the last listing of a folder had: what a listing costs.
        self._pages: dict[tuple[str, str], int] = {}

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them, folder by folder, in a thread."""
        return await asyncio.to_thread(self._look, list(addresses))

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: S3 does not tell."""
        return
        yield

    async def aclose(self) -> None:
        """Nothing to let go of: clients belong to the process."""

    def _look(self, addresses: list[str]) -> dict[str, Answer]:
        folders: dict[tuple[str, str], list[str]] = defaultdict(list)
        for text in addresses:
            bucket, key = split_address(text)
            folder, slash, _ = key.rpartition("/")
            folders[bucket, folder + slash].append(key)
        # Folders that nobody waits for any more are forgotten.
        self._pages = {at: self._pages.get(at, 1) for at in folders}
        answers: dict[str, Answer] = {}
        away: SinkUnavailable | None = None
        for (bucket, folder), keys in folders.items():
            # What is wrong with one folder is no concern of those who wait in another.
            try:
                found = self._list(bucket, folder, keys)
            except SinkUnavailable as error:
                away = error
                log.warning("A look failed; waiting goes on: %s", error)
                continue
            except SinkError as error:
                answers.update((address(bucket, key), error) for key in keys)
                continue
            for key in keys:
                arrival = _arrival(bucket, key, found)
                if arrival is not None:
                    answers[address(bucket, key)] = arrival
        if away is not None and not answers:
            raise away
        return answers

    def _list(self, bucket: str, folder: str, keys: list[str]) -> dict[str, float]:
        """Return what lies there: key to time of last change."""
        client = s3_client(self._aws_conn_id)
        if len(keys) <= self._pages[bucket, folder] and len(keys) > 1:
            # A folder with many old objects: a listing would have more pages than
            # there are waits, so each wait asks for its own two keys.
            found: dict[str, float] = {}
            for key in keys:
                found.update(self._list_prefix(client, bucket, key)[0])
            return found
        if len(keys) == 1:
            return self._list_prefix(client, bucket, keys[0])[0]
        found, pages = self._list_prefix(client, bucket, folder)
        self._pages[bucket, folder] = pages
        return found

    def _list_prefix(
        self, client: Any, bucket: str, prefix: str
    ) -> tuple[dict[str, float], int]:
        found: dict[str, float] = {}
        pages = 0
        with s3_errors(address(bucket, prefix), self._aws_conn_id, "list"):
            paginator = client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
                pages += 1
                for item in page.get("Contents", ()):
                    found[item["Key"]] = item["LastModified"].timestamp()
        return found, pages


def _arrival(bucket: str, key: str, found: Mapping[str, float]) -> Arrival | None:
    # A result is stronger than a failure: the job may have been run again.
    for name, status in ((key, COMPLETED), (key + FAILED_SUFFIX, FAILED)):
        if name in found:
            return Arrival(status, address(bucket, name), found[name])
    return None
