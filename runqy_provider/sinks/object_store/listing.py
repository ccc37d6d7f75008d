# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A bucket as a source for a waiter: one listing of a folder for all waits in it.

If each wait has a folder of its own, one listing of their common parent folder takes
fewer requests, unless that contains many other objects. So the cost of both is
compared, in requests.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from typing import TYPE_CHECKING

from runqy_delivery.wire import COMPLETED, FAILED
from runqy_provider.airflow_compat import in_thread
from runqy_provider.errors import SinkError, SinkUnavailable
from runqy_provider.sinks.object_store.uri import object_uri
from runqy_provider.waiters.source import Arrival, PollResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping

    from runqy_provider.sinks.object_store.base import ObjectStore

log = logging.getLogger(__name__)

#: What is appended to the key of a result for the key of a failed delivery.
FAILED_SUFFIX = ".failed.json"


class ObjectSource:
    """Polls a bucket for objects; each wait has the key of an object.

    Args:
        store: Returns the bucket; called at each poll, in a thread.
    """

    def __init__(self, store: Callable[[], ObjectStore]) -> None:
        self._store = store
        # Pages of the last listing of each folder: the number of its requests.
        self._pages: dict[str, int] = {}
        # The same for the listing of the common parent folder, and the name of that
        # folder.
        self._above: tuple[str, float] = ("", 1)

    async def poll(self, keys: Collection[str]) -> Mapping[str, PollResult]:
        """Look for all objects, folder by folder, in a thread."""
        return await in_thread(self._poll, list(keys))

    async def hints(self) -> AsyncIterator[str | None]:
        """Yield nothing: object stores give no hints."""
        return
        yield

    async def aclose(self) -> None:
        """Do nothing: the clients belong to the process."""

    def _poll(self, wanted: list[str]) -> dict[str, PollResult]:
        folders: dict[str, list[str]] = defaultdict(list)
        for key in wanted:
            folder, slash, _ = key.rpartition("/")
            folders[folder + slash].append(key)
        # Folders without waits are forgotten.
        self._pages = {folder: self._pages.get(folder, 1) for folder in folders}
        store = self._store()
        results: dict[str, PollResult] = {}
        unavailable: SinkUnavailable | None = None
        found_above = self._list_above(store, folders)
        for folder, keys in folders.items():
            # An error of one folder must not affect the waits in another.
            try:
                if found_above is not None:
                    found = found_above
                else:
                    found = self._list(store, folder, keys)
            except SinkUnavailable as error:
                unavailable = error
                log.warning("Polling failed, will retry: %s", error)
                continue
            except SinkError as error:
                results.update((key, error) for key in keys)
                continue
            for key in keys:
                arrival = _arrival(store, key, found)
                if arrival is not None:
                    results[key] = arrival
        if unavailable is not None and not results:
            raise unavailable
        return results

    def _list_above(
        self, store: ObjectStore, folders: Mapping[str, list[str]]
    ) -> dict[str, float] | None:
        """Return a listing of the common parent of these folders; None: list each."""
        requests = sum(
            min(len(keys), self._pages[folder]) for folder, keys in folders.items()
        )
        above = _folder_above(folders)
        known_as, pages = self._above
        if len(folders) == 1 or (known_as == above and requests <= pages):
            return None
        try:
            listing = store.list_below(above, requests - 1)
        except SinkUnavailable:
            return None  # the same happens to each folder, and is reported there
        except SinkError:
            # Permissions may be limited to the folders.
            self._above = (above, math.inf)
            return None
        if listing is None:
            # Not tried again until there are many more waits.
            self._above = (above, 2 * requests)
            return None
        self._above = (above, listing.pages)
        return listing.keys

    def _list(
        self, store: ObjectStore, folder: str, keys: list[str]
    ) -> dict[str, float]:
        """Return the times of the last change of the objects in a folder, by key."""
        if len(keys) <= self._pages[folder]:
            # One wait; or so many old objects that a listing takes more requests than
            # looking for the keys of each wait.
            found: dict[str, float] = {}
            for key in keys:
                found.update(store.find(key, FAILED_SUFFIX).keys)
            return found
        listing = store.list_folder(folder)
        self._pages[folder] = listing.pages
        return listing.keys


def _folder_above(folders: Iterable[str]) -> str:
    """Return the deepest folder that all of these are in; empty for the bucket."""
    above = ""
    # In sorted order, the first and the last have the shortest common prefix.
    pairs = zip(min(folders).split("/"), max(folders).split("/"), strict=False)
    for one, other in pairs:
        if one != other or not one:
            break
        above += f"{one}/"
    return above


def _arrival(
    store: ObjectStore, key: str, found: Mapping[str, float]
) -> Arrival | None:
    """Return the arrival of a result or a failure; None if neither was found."""
    # A result takes precedence: the job may have been run again after it failed.
    for name, status in ((key, COMPLETED), (key + FAILED_SUFFIX, FAILED)):
        if name in found:
            return Arrival(status, object_uri(store.url, name), found[name])
    return None
