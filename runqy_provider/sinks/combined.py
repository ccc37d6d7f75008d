# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Several sinks at once: one holds the result, the others tell that it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery import Delivery
from runqy_provider.errors import (
    BadDelivery,
    Misconfigured,
    NoAccess,
    NotThere,
    SinkError,
)
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.object_store.sink import ObjectSink
from runqy_provider.sinks.redis_storage import RedisStorageSink
from runqy_provider.sinks.result import Parcel
from runqy_provider.sinks.webhook import WebhookSink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_delivery import DeliveryRequest
    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.waiters.source import Place

#: Bare news are a null or a URL; what is longer is a result.
LONGEST_NEWS = 8192

_SEPARATOR = re.compile("[#/]")

#: Fields of a notification that are the delivery's own, and no metadata.
_OF_DELIVERY = frozenset({"task_id", "status", "result", "result_url", "version"})


@dataclass(frozen=True)
class CombinedSink(Sink):
    """A result in one sink, and news of it in others.

    Args:
        holder: The sink that holds the result.
        tellers: Sinks that say that it is there: a table with the metadata, a webhook
            as the bell.
    """

    holder: Sink
    tellers: tuple[Sink, ...]

    def __post_init__(self) -> None:
        for sink in (self.holder, *self.tellers):
            if isinstance(sink, (RedisStorageSink, CombinedSink)):
                raise Misconfigured(
                    f"{sink.uri!r} cannot be combined with other sinks: runqy stores "
                    "the result after the task code has ended, when nobody can tell "
                    "of it any more. Use it alone."
                )
        for sink in self.tellers:
            if isinstance(sink, ObjectSink):
                raise Misconfigured(
                    f"{sink.uri!r} cannot tell where a result is: an object store "
                    "holds it. Name it first, and only one."
                )
        kinds = [type(sink) for sink in (self.holder, *self.tellers)]
        if len(set(kinds)) != len(kinds):
            raise Misconfigured(
                f"{self.uri!r} names two sinks of a kind; one of each can be combined."
            )

    @property
    def needs_failure_channel(self) -> bool:  # type: ignore[override] # by its parts
        """True where none of them is, or has, a webhook."""
        return not self.takes_progress and self.holder.needs_failure_channel

    @property
    def uri(self) -> str:
        """The sinks as a text, the one that holds the result first."""
        return " ".join(sink.uri for sink in self._all)

    @property
    def _all(self) -> tuple[Sink, ...]:
        return (self.holder, *self.tellers)

    @property
    def takes_progress(self) -> bool:
        """True where one of them takes it."""
        return any(sink.takes_progress for sink in self._all)

    def check(self, access: Access) -> None:
        """Check all of them."""
        for sink in self._all:
            sink.check(access)

    def request(
        self, access: Access, delivery_id: str, expires: float
    ) -> DeliveryRequest:
        """Ask the holder's request, with what the others add to it."""
        request = self.holder.request(access, delivery_id, expires)
        added: dict[str, Any] = {}
        for sink in self.tellers:
            told = sink.request(access, delivery_id, expires)
            for name in ("webhook_url", "table", "amqp"):
                if getattr(request, name) is None:
                    added.setdefault(name, getattr(told, name))
        where = request.url or self.holder.where(access, delivery_id)
        return dataclasses.replace(
            request, url=where, failed_key=None, failed_put_url=None, **added
        )

    def prepare(self, access: Access, delivery_id: str) -> None:
        """Make room in all of them."""
        for sink in self._all:
            sink.prepare(access, delivery_id)

    def where(self, access: Access, delivery_id: str) -> str:
        """Return where the result will be: at the holder's."""
        return self.holder.where(access, delivery_id)

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the holder's places, and the others' where their news can be used."""
        if self.holder.is_moved:
            # News of a result may come before it can be opened; who says how far the
            # job is, or that it failed, is heard.
            heard = any(sink.takes_progress for sink in self.tellers)
            inbox = inbox_parcels.place(
                access, ticket.delivery_id, is_essential=False, takes_results=False
            )
            return [*self.holder.places(access, ticket), *([inbox] if heard else ())]
        places = {
            (place.key, place.address): dataclasses.replace(place, is_essential=False)
            for sink in self.tellers
            for place in sink.places(access, ticket)
        }
        for place in self.holder.places(access, ticket):
            places[place.key, place.address] = place
        return list(places.values())

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open the result at the holder, whichever sink was heard first.

        What the notifications say beside the address is the result's metadata.
        """
        sink = self._owner(where)
        lead = follow or functools.partial(self.follow, access)
        opened = sink.open(access, where, lead)
        if opened.error is not None:
            return opened
        if self._is_held(opened):
            return self._with_notes(access, opened, _delivery_id(where))
        notification = _said(opened)
        held = self._held(access, notification, _delivery_id(where))
        if held is None:
            return opened  # task code gave the result to this sink alone
        return self._with_notes(access, held, _delivery_id(where))

    def _owner(self, where: str) -> Sink:
        # The holder may own what is in the inbox, too: the webhook that tells of it.
        sinks = self.tellers if inbox_parcels.is_in_inbox(where) else ()
        for sink in (*sinks, *self._all):
            if sink.owns(where):
                return sink
        raise NoAccess(f"{where} is in none of the sinks {self.uri!r}.")

    def _is_held(self, parcel: Parcel) -> bool:
        if inbox_parcels.is_in_inbox(parcel.where) and not self.holder.is_inbox:
            return False
        return self.holder.owns(parcel.where)

    def follow(self, access: Access, delivery: Delivery, url: str) -> Parcel:
        """Open a result of which a teller says where it lies."""
        where = self.holder.where(access, delivery.delivery_id)
        if url != where:
            return self.holder.follow(access, delivery, url)
        parcel = self.holder.open(access, where)
        if parcel.metadata is None and delivery.metadata is not None:
            parcel = dataclasses.replace(parcel, metadata=delivery.metadata)
        return parcel

    def link(self, access: Access, where: str, seconds: float) -> str | None:
        """Return a URL of what the holder has."""
        return self.holder.link(access, where, seconds)

    def owns(self, where: str) -> bool:
        """True for what is in one of them."""
        return any(sink.owns(where) for sink in self._all)

    def _held(self, access: Access, said: Any, delivery_id: str) -> Parcel | None:
        """Return what the holder has of a job of which a notification was read."""
        url = said.get("result_url") if isinstance(said, Mapping) else said
        if isinstance(url, str):
            try:
                return self.follow(access, Delivery(delivery_id, result_url=url), url)
            except NoAccess:
                if isinstance(said, Mapping):
                    raise  # it says where, and we may not go there
        try:
            return self.holder.open(access, self.where(access, delivery_id))
        except NotThere:
            return None

    def _with_notes(self, access: Access, held: Parcel, delivery_id: str) -> Parcel:
        """Return a result with what all notifications that are there say of it."""
        notes: dict[str, Any] = {}
        for sink in self.tellers:
            with contextlib.suppress(SinkError, BadDelivery):
                where = sink.where(access, delivery_id)
                told = sink.open(access, where, _stay_here)
                notes.update(_notes(told))
        notes.update(held.metadata or {})
        return dataclasses.replace(held, metadata=notes or None)

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say where we looked for a result."""
        looked = (self.holder,) if self.holder.is_moved else self._all
        return " ".join(sink.nothing_arrived(access, ticket) for sink in looked)


def how_to_take_progress(sink: Sink) -> str:
    """Say how a sink without progress messages may get them, or why it cannot."""
    parts = (sink.holder, *sink.tellers) if isinstance(sink, CombinedSink) else (sink,)
    try:
        CombinedSink(parts[0], (*parts[1:], WebhookSink()))
    except Misconfigured as error:
        return str(error)
    uris = [part.uri for part in parts]
    return f"Add the webhook: sink={[*uris, WebhookSink().uri]}."


def _stay_here(delivery: Delivery, _url: str) -> Parcel:
    """Return what a notification says, in place of opening what it leads to."""
    return Parcel(where="", delivered_at=0.0, metadata=delivery.metadata)


def _said(parcel: Parcel) -> Any:
    """Return the JSON of a notification; None where it is not one, or too long."""
    if not parcel.is_json or (parcel.size or 0) > LONGEST_NEWS:
        return None
    return parcel.value()


def _notes(told: Parcel) -> Mapping[str, Any]:
    if told.error is not None:
        return {}
    said = _said(told) if told.stream is not None else None
    fields = said if isinstance(said, Mapping) and "result_url" in said else {}
    own = {name: value for name, value in fields.items() if name not in _OF_DELIVERY}
    return {**own, **(told.metadata or {})}


def _delivery_id(where: str) -> str:
    # All addresses of ours end with the delivery's id.
    return _SEPARATOR.split(where)[-1]
