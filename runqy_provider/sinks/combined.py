# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Several sinks at once: one holds the result, the others tell that it is there."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runqy_delivery import Delivery
from runqy_provider.errors import Misconfigured, NoAccess, NotThere
from runqy_provider.sinks import inbox_parcels
from runqy_provider.sinks.base import Sink
from runqy_provider.sinks.objects.sink import ObjectSink
from runqy_provider.sinks.redis_storage import RedisStorageSink
from runqy_provider.sinks.webhook import WebhookSink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_delivery import DeliveryRequest
    from runqy_provider.sinks.base import Access, Follow, Place
    from runqy_provider.sinks.parcel import Parcel
    from runqy_provider.sinks.ticket import Ticket

#: Bare news are a null or a URL; what is longer is a result.
LONGEST_NEWS = 8192

_SEPARATOR = re.compile("[#/]")


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
        """Open what arrived; what only tells, leads to the holder's."""
        sink = next((each for each in self._all if each.owns(where)), None)
        if sink is None:
            raise NoAccess(f"{where} is in none of the sinks {self.uri!r}.")
        lead = follow or functools.partial(self.follow, access)
        parcel = sink.open(access, where, lead)
        if sink is self.holder or parcel.error is not None:
            return parcel
        return self._held(access, parcel) or parcel

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

    def _held(self, access: Access, news: Parcel) -> Parcel | None:
        """Return what bare news lead to: a null, or a URL, as guides write them."""
        if not news.is_json or (news.size or 0) > LONGEST_NEWS:
            return None
        said = news.value()
        # All addresses of ours end with the delivery's id.
        delivery_id = _SEPARATOR.split(news.where)[-1]
        if said is None:
            try:
                return self.holder.open(access, self.where(access, delivery_id))
            except NotThere:
                return None  # so null is the result
        if not isinstance(said, str) or not isinstance(self.holder, ObjectSink):
            return None
        if self.holder.store(access).key_of(said) is None:
            return None
        delivery = Delivery(delivery_id, result_url=said)
        return self.holder.follow(access, delivery, said)

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
