# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Several sinks at once: the first holds the result, the others announce it."""

from __future__ import annotations

import contextlib
import dataclasses
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
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.inbox import is_in_inbox
from runqy_provider.sinks.result import StoredResult
from runqy_provider.sinks.webhook import WebhookSink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from typing_extensions import Self

    from runqy_delivery import DeliveryRequest
    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import UrlOpener
    from runqy_provider.waiters.waiter import WaitTarget

#: A notification without a delivery is null or a URL; anything longer is a result.
MAX_NOTIFICATION_BYTES = 8192

#: Fields of a notification that belong to the delivery, and are not metadata.
_DELIVERY_FIELDS = frozenset({"task_id", "status", "result", "result_url", "version"})


@dataclass(frozen=True)
class CombinedSink(Sink):
    """A result in one sink, and notifications of it in others.

    Args:
        primary: The sink that holds the result.
        notifiers: Sinks that announce it: a table with the metadata, a webhook.
    """

    primary: Sink
    notifiers: tuple[Sink, ...]

    def __post_init__(self) -> None:
        for sink in self.parts:
            if not sink.can_be_combined:
                raise Misconfigured(
                    f"{sink.uri!r} cannot be combined with other sinks: its results "
                    "are stored after the task code has ended, which is too late to "
                    "send a notification. Use it alone."
                )
        for sink in self.notifiers:
            if sink.notification_field is None:
                raise Misconfigured(
                    f"{sink.uri!r} cannot announce where a result is: it is a place "
                    "for results. Name it first, and only one of its kind."
                )
        kinds = [type(sink) for sink in self.parts]
        if len(set(kinds)) != len(kinds):
            raise Misconfigured(
                f"{self.uri!r} names two sinks of the same kind; a combination can "
                "have only one of each."
            )

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Refuse: ``sink_from_uri`` combines the sinks of several URIs.

        Raises:
            Misconfigured: Always.
        """
        raise Misconfigured(f"{uri!r} is not the URI of a single sink.")

    @property
    def needs_failure_channel(self) -> bool:  # type: ignore[override] # by its parts
        """Whether none of the sinks is, or has, a webhook."""
        return not self.takes_progress and self.primary.needs_failure_channel

    @property
    def uri(self) -> str:
        """The sinks as text, the one that holds the result first."""
        return " ".join(sink.uri for sink in self.parts)

    @property
    def parts(self) -> tuple[Sink, ...]:
        """The sinks, the one that holds the result first."""
        return (self.primary, *self.notifiers)

    @property
    def takes_progress(self) -> bool:
        """Whether progress can be reported to one of the sinks."""
        return any(sink.takes_progress for sink in self.parts)

    def bind(self, settings: Settings) -> BoundCombinedSink:
        return BoundCombinedSink(self, settings)


class BoundCombinedSink(BoundSink):
    """The sinks, each bound to the same connection."""

    sink: CombinedSink

    def __init__(self, sink: CombinedSink, settings: Settings) -> None:
        super().__init__(sink, settings)
        self.primary = sink.primary.bind(settings)
        self.notifiers = tuple(one.bind(settings) for one in sink.notifiers)
        self._all = (self.primary, *self.notifiers)

    def check(self) -> None:
        for sink in self._all:
            sink.check()

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:
        """Request what the primary sink requests, and a notification for each other."""
        request = self.primary.request(delivery_id, expires)
        added: dict[str, Any] = {}
        for notifier in self.notifiers:
            field = notifier.sink.notification_field or ""
            if getattr(request, field) is None:
                added[field] = getattr(notifier.request(delivery_id, expires), field)
        url = request.url or self.primary.result_uri(delivery_id)
        return dataclasses.replace(
            request, url=url, failed_key=None, failed_put_url=None, **added
        )

    def prepare(self, delivery_id: str) -> None:
        for sink in self._all:
            sink.prepare(delivery_id)

    def result_uri(self, delivery_id: str) -> str:
        """Return where the result will be: in the primary sink."""
        return self.primary.result_uri(delivery_id)

    def owns(self, uri: str) -> bool:
        """Return whether a delivery is in one of the sinks."""
        return any(sink.owns(uri) for sink in self._all)

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        """Return the primary sink's sources, and those of usable notifications."""
        if self.sink.primary.is_relayed:
            # A notification may arrive before the result can be opened; progress and
            # failures can be used at once.
            targets = list(self.primary.targets(job))
            if any(sink.takes_progress for sink in self.sink.notifiers):
                targets.append(
                    self.inbox.target(
                        job.delivery_id, is_required=False, takes_results=False
                    )
                )
            return targets
        by_key = {
            (target.waiter_factory, target.key): dataclasses.replace(
                target, is_required=False
            )
            for notifier in self.notifiers
            for target in notifier.targets(job)
        }
        for target in self.primary.targets(job):
            by_key[target.waiter_factory, target.key] = target
        return list(by_key.values())

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        """Open a delivery in the sink that has it."""
        return self._owner(uri).open(uri, open_url or self.open_url)

    def open_arrival(self, delivery_id: str, uri: str) -> StoredResult:
        """Open the result in the primary sink, whichever sink announced it first.

        The other fields of the notifications are the metadata of the result.
        """
        opened = self.open(uri)
        if opened.error is not None:
            return opened
        if not self._is_in_primary(opened):
            announced = self._resolve_notification(delivery_id, _content(opened))
            if announced is None:
                return opened  # task code gave the result to this sink alone
            opened = announced
        return self._with_notes(delivery_id, opened)

    def open_url(self, delivery: Delivery, url: str) -> StoredResult:
        """Open a result at the place that a notification names."""
        uri = self.primary.result_uri(delivery.delivery_id)
        if url != uri:
            return self.primary.open_url(delivery, url)
        opened = self.primary.open(uri)
        if opened.metadata is None and delivery.metadata is not None:
            opened = dataclasses.replace(opened, metadata=delivery.metadata)
        return opened

    def write_manifest(self, batch_id: str, lines: BinaryIO) -> str:
        """Store the manifest of a batch in the primary sink."""
        return self.primary.write_manifest(batch_id, lines)

    def link(self, uri: str, seconds: float) -> str | None:
        """Return a URL of a result in the primary sink."""
        return self.primary.link(uri, seconds)

    def describe_timeout(self, job: JobRef) -> str:
        """Say where a result was looked for."""
        looked = (self.primary,) if self.sink.primary.is_relayed else self._all
        return " ".join(sink.describe_timeout(job) for sink in looked)

    def _owner(self, uri: str) -> BoundSink:
        # The primary sink may own what is in the inbox, too: its own webhook.
        first = self.notifiers if is_in_inbox(uri) else ()
        for sink in (*first, *self._all):
            if sink.owns(uri):
                return sink
        raise NoAccess(f"{uri} is in none of the sinks {self.sink.uri!r}.")

    def _is_in_primary(self, opened: StoredResult) -> bool:
        if is_in_inbox(opened.uri) and not self.sink.primary.is_inbox:
            return False
        return self.primary.owns(opened.uri)

    def _resolve_notification(
        self, delivery_id: str, content: Any
    ) -> StoredResult | None:
        """Return the result that a notification announces; None if there is none."""
        url = content.get("result_url") if isinstance(content, Mapping) else content
        if isinstance(url, str):
            try:
                return self.open_url(Delivery(delivery_id, result_url=url), url)
            except NoAccess:
                if isinstance(content, Mapping):
                    raise  # it names a URL from which nothing may be read
        try:
            return self.primary.open(self.result_uri(delivery_id))
        except NotThere:
            return None

    def _with_notes(self, delivery_id: str, opened: StoredResult) -> StoredResult:
        """Return a result with what all its notifications say as metadata."""
        notes: dict[str, Any] = {}
        for notifier in self.notifiers:
            with contextlib.suppress(SinkError, BadDelivery):
                uri = notifier.result_uri(delivery_id)
                notes.update(_notes(notifier.open(uri, _metadata_only)))
        notes.update(opened.metadata or {})
        return dataclasses.replace(opened, metadata=notes or None)


def how_to_take_progress(sink: Sink) -> str:
    """Say how a sink without progress reports may get them, or why it cannot."""
    webhook = WebhookSink()
    try:
        CombinedSink(sink.parts[0], (*sink.parts[1:], webhook))
    except Misconfigured as error:
        return str(error)
    uris = [part.uri for part in sink.parts]
    return f"Add the webhook: sink={[*uris, webhook.uri]}."


def _metadata_only(delivery: Delivery, _url: str) -> StoredResult:
    """Return the contents of a notification, without opening its result."""
    return StoredResult(uri="", delivered_at=0.0, metadata=delivery.metadata)


def _content(opened: StoredResult) -> Any:
    """Return the JSON of a notification; None if it has none, or is too long."""
    if not opened.is_json or (opened.size or 0) > MAX_NOTIFICATION_BYTES:
        return None
    return opened.json()


def _notes(opened: StoredResult) -> Mapping[str, Any]:
    if opened.error is not None:
        return {}
    content = _content(opened) if opened.stream is not None else None
    if not isinstance(content, Mapping) or "result_url" not in content:
        content = {}
    own = {key: value for key, value in content.items() if key not in _DELIVERY_FIELDS}
    return {**own, **(opened.metadata or {})}
