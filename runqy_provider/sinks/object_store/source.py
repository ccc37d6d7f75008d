# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A bucket as a source for a waiter: one listing of a folder for all waits in it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.errors import SinkError, SinkUnavailable
from runqy_provider.sinks.object_store.uri import address_of
from runqy_provider.waiters.source import Answer, Arrival

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from runqy_provider.sinks.object_store.base import ObjectStore

log = logging.getLogger(__name__)

#: What a failure's delivery is stored under: the key of the result, and this.
FAILED_SUFFIX = ".failed.json"


class ObjectArrivals:
    """Objects that appear in a bucket; addresses are keys.

    Args:
        store: Returns the bucket; called at each look, in a thread.
    """

    def __init__(self, store: Callable[[], ObjectStore]) -> None:
        self._store = store
        # How many pages the last listing of a folder had: what a listing costs.
        self._pages: dict[str, int] = {}

    async def look(self, addresses: Collection[str]) -> Mapping[str, Answer]:
        """Look for all of them, folder by folder, in a thread."""
        return await asyncio.to_thread(self._look, list(addresses))

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: object stores do not tell."""
        return
        yield

    async def aclose(self) -> None:
        """Nothing to let go of: clients belong to the process."""

    def _look(self, addresses: list[str]) -> dict[str, Answer]:
        folders: dict[str, list[str]] = defaultdict(list)
        for key in addresses:
            folder, slash, _ = key.rpartition("/")
            folders[folder + slash].append(key)
        # Folders that nobody waits for any more are forgotten.
        self._pages = {at: self._pages.get(at, 1) for at in folders}
        store = self._store()
        answers: dict[str, Answer] = {}
        away: SinkUnavailable | None = None
        for folder, keys in folders.items():
            # What is wrong with one folder is no concern of those who wait in another.
            try:
                found = self._list(store, folder, keys)
            except SinkUnavailable as error:
                away = error
                log.warning("A look failed; waiting goes on: %s", error)
                continue
            except SinkError as error:
                answers.update((key, error) for key in keys)
                continue
            for key in keys:
                arrival = _arrival(store, key, found)
                if arrival is not None:
                    answers[key] = arrival
        if away is not None and not answers:
            raise away
        return answers

    def _list(
        self, store: ObjectStore, folder: str, keys: list[str]
    ) -> dict[str, float]:
        """Return what lies there: key to time of last change."""
        if len(keys) <= self._pages[folder]:
            # One wait, or a folder with many old objects whose listing would have
            # more pages than there are waits: each asks for its own two keys.
            found: dict[str, float] = {}
            for key in keys:
                found.update(store.find(key, FAILED_SUFFIX).found)
            return found
        listing = store.list_folder(folder)
        self._pages[folder] = listing.pages
        return listing.found


def _arrival(
    store: ObjectStore, key: str, found: Mapping[str, float]
) -> Arrival | None:
    # A result is stronger than a failure: the job may have been run again.
    for name, status in ((key, COMPLETED), (key + FAILED_SUFFIX, FAILED)):
        if name in found:
            return Arrival(status, address_of(store.url, name), found[name])
    return None
