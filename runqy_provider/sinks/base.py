# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What every sink is: a description, and its work when it has a connection."""

from __future__ import annotations

import abc
import dataclasses
import functools
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.errors import (
    DeliveryIdTaken,
    Misconfigured,
    NotInSink,
    RunqyError,
)
from runqy_provider.inbox import keys
from runqy_provider.inbox.callback_url import channel_of, check_delivery_id
from runqy_provider.models import JobRef
from runqy_provider.waiters.race import poll_now
from runqy_provider.waiters.waiter import Waiter, WaitTarget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from typing_extensions import Self

    from runqy_delivery import Delivery, DeliveryRequest
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.inbox import InboxBackend
    from runqy_provider.sinks.result import StoredResult, UrlOpener
    from runqy_provider.waiters.source import Source


#: Seconds for which a delivery is accepted after its wait has ended: a late result is
#: kept, and a retry of the task can still find it.
LATE_DELIVERY = 24 * 3600

#: How many of many deliveries are opened at a time.
OPEN_AT_ONCE = 16


class Sink(abc.ABC):
    """Where results go, fully described by a URI.

    A sink has no connection and sends no requests: ``bind`` returns an object that
    does. Register your own class under its scheme by an entry point of the group
    ``runqy_provider.sinks``; see ``docs/how-to/add-a-sink.md``.
    """

    #: Whether something has to move a delivery before it can be opened: a notification
    #: may then arrive before the result.
    is_relayed: ClassVar[bool] = False

    #: Whether the inbox holds the results.
    is_inbox: ClassVar[bool] = False

    #: Whether it can be combined with other sinks.
    can_be_combined: ClassVar[bool] = True

    #: The field of a delivery request by which the sink announces a result that another
    #: sink holds; None if it cannot.
    notification_field: ClassVar[str | None] = None

    #: Whether a worker that cannot write to the sink has no other way to report it.
    needs_failure_channel: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def from_uri(cls, uri: str) -> Self:
        """Return the sink that a URI describes.

        Raises:
            Misconfigured: The URI is not valid.
        """

    @classmethod
    def for_result(cls, uri: str) -> Self:
        """Return a sink that can open the result at a URI, as in a Reference.

        Raises:
            Misconfigured: The URI is not valid.
        """
        return cls.from_uri(uri.partition("#")[0])

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The sink as text; ``from_uri`` reads it back."""

    @abc.abstractmethod
    def bind(self, settings: Settings) -> BoundSink:
        """Return what the sink does with a runqy connection."""

    def with_connection(self, conn_id: str) -> Sink:  # noqa: ARG002 - for sinks that can
        """Return the same sink with another Airflow connection, if it has one."""
        return self

    @property
    def parts(self) -> tuple[Sink, ...]:
        """The sinks that this one consists of, the one with the result first."""
        return (self,)

    @property
    def delivers_by_webhook(self) -> bool:
        """Whether the delivery of a result reaches the receiver."""
        return any(part.notification_field == "webhook_url" for part in self.parts)

    @property
    def takes_progress(self) -> bool:
        """Whether its requests name a webhook, if one is set up."""
        return False


class BoundSink(abc.ABC):
    """A sink together with the runqy connection that it is used with.

    Attributes:
        sink: The sink.
        settings: Its connection and the options.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self.sink = sink
        self.settings = settings
        self._is_warned = False

    @functools.cached_property
    def inbox(self) -> InboxBackend:
        """The inbox of the runqy connection."""
        from runqy_provider.sinks.inbox import (  # noqa: PLC0415 - it imports this module
            InboxBackend,
        )

        return InboxBackend(self.settings)

    @property
    def has_failure_channel(self) -> bool:
        """Whether only failures may arrive by webhook.

        A worker without a driver, an address or a permission cannot write to the sink,
        so it cannot report that there either. So each delivery request names the
        webhook for failures, if one is set up. Task code that follows runqy's guide
        does not read it.
        """
        return self.sink.needs_failure_channel and self.inbox.is_configured

    def check_delivery(self, delivery_id: str) -> None:
        """Check, before anything is enqueued, that a result can be read.

        Args:
            delivery_id: Id of the delivery, or of one of several.

        Raises:
            Misconfigured: The id, or a field of the connection, is not valid.
            SinkError: The result could not be read later.
        """
        check_delivery_id(delivery_id)
        if channel_of(delivery_id) and not self.sink.delivers_by_webhook:
            raise Misconfigured(
                f"A delivery to a channel must reach the inbox, and the sink "
                f"{self.sink.uri!r} has no webhook. Add it: "
                f"sink='{self.sink.uri} webhook'."
            )
        self.check()

    def check_is_new(self, delivery_id: str) -> None:
        """Check, before a job is enqueued, that there is no delivery with this id.

        The result of another job would look like that of the new one.

        Raises:
            DeliveryIdTaken: There is one.
            SinkError: The sink cannot be asked.
        """
        try:
            targets = self.all_targets(JobRef(delivery_id, self.sink.uri))
        except Misconfigured:
            return  # the job holds its result, under its own id
        found = poll_now([target for target in targets if not target.is_relayed])
        if found is not None:
            raise DeliveryIdTaken(
                f"Nothing was enqueued: the sink {self.sink.uri!r} has a delivery "
                f"{delivery_id} already, at {found.result_uri}. It would look like "
                "that of the new job. Choose another delivery_id for each job: "
                "RunqyHook.new_delivery_id()."
            )

    def prepared_fields(self, delivery_id: str, deadline: float) -> dict[str, Any]:
        """Prepare for a delivery, and return the payload's fields that ask for it.

        Args:
            delivery_id: Id of the delivery.
            deadline: Until when it is waited for, in seconds since 1970.

        Raises:
            SinkError: The sink could not be prepared.
        """
        request = self.whole_request(delivery_id, deadline + LATE_DELIVERY)
        if request.webhook_url is not None and not self._is_warned:
            self._is_warned = True
            self.inbox.warn_of_loopback()
        self.prepare(delivery_id)
        return request.to_fields()

    def whole_request(self, delivery_id: str, expires: float) -> DeliveryRequest:
        """Return the request for the task code, with the channel for failures."""
        request = self.request(delivery_id, expires)
        if not self.has_failure_channel:
            return request
        url = self.inbox.webhook_url(delivery_id, expires)
        return dataclasses.replace(request, failure_url=url)

    def all_targets(self, job: JobRef) -> list[WaitTarget]:
        """Return all sources at which a delivery, or its failure, may arrive.

        Raises:
            Misconfigured: The job, or the connection, lacks what is needed to look.
        """
        targets = list(self.targets(job))
        if self.has_failure_channel:
            targets.append(
                self.inbox.target(
                    job.delivery_id, is_required=False, takes_results=False
                )
            )
        return targets

    def open_arrived(self, delivery_id: str, uri: str) -> StoredResult:
        """Open what arrived, in the sink or as a failure by webhook.

        Args:
            delivery_id: Id of the delivery.
            uri: Where it arrived.

        Raises:
            SinkError: It cannot be read.
            BadDelivery: It is not of the type that it claims.
        """
        if uri.startswith(keys.SCHEME) and not self.owns(uri):
            return self.inbox.open(uri, self.open_url)
        return self.open_arrival(delivery_id, uri)

    @abc.abstractmethod
    def check(self) -> None:
        """Check, before a job is enqueued, that its result can be read.

        Raises:
            Misconfigured: A field of the connection is missing.
            SinkError: The sink is unavailable, does not exist, or refuses access.
        """

    @abc.abstractmethod
    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:
        """Return the delivery request for the task code.

        Args:
            delivery_id: Id of the delivery.
            expires: Until when the request must work, in seconds since 1970.
        """

    def prepare(self, delivery_id: str) -> None:  # noqa: B027 - most sinks need nothing
        """Prepare for a delivery, immediately before its job is enqueued.

        Raises:
            SinkError: The sink cannot be prepared; nothing will be enqueued.
        """

    @abc.abstractmethod
    def result_uri(self, delivery_id: str) -> str:
        """Return where the result will be, if it is delivered as requested.

        Raises:
            Misconfigured: That cannot be known beforehand.
        """

    def result_uri_of(self, job: JobRef) -> str:
        """Return where the result of an enqueued job will be."""
        return self.result_uri(job.delivery_id)

    @abc.abstractmethod
    def owns(self, uri: str) -> bool:
        """Return whether ``open`` can open the delivery at a URI."""

    #: Seconds between two polls of ``source``.
    interval: float = 1.0

    def source(self) -> Source:
        """Return what is polled for all deliveries to this sink, by their ids.

        It is made once per process, and again after a change of the runqy connection.
        A sink with sources of another kind overrides ``targets`` instead.
        """
        raise NotImplementedError(f"{type(self).__name__} has no source.")

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        """Return the sources at which the delivery may arrive.

        Raises:
            Misconfigured: The job, or the connection, lacks what is needed to look.
        """
        maker = _WaiterOfSink(self.sink.uri, self.settings, self)
        return [WaitTarget(maker, job.delivery_id)]

    @abc.abstractmethod
    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        """Open a delivery that has arrived.

        Args:
            uri: Where it is.
            open_url: Opens the result if the delivery only names its URL; by default
                the sink's own ``open_url``.

        Raises:
            NotThere: It does not exist any more.
            NoAccess: This sink may not read there.
            SinkUnavailable: The sink is unavailable.
            TooLarge: It is larger than ``context.max_read_bytes``.
            BadDelivery: It cannot be read.
        """

    def open_arrival(self, delivery_id: str, uri: str) -> StoredResult:  # noqa: ARG002 - for combined sinks
        """Open the delivery that a wait saw arrive; raises what ``open`` does.

        Args:
            delivery_id: Id of the delivery.
            uri: Where it arrived.
        """
        return self.open(uri)

    def open_all(
        self, jobs: Sequence[JobRef], small: int
    ) -> Iterator[StoredResult | Exception]:
        """Open many deliveries at the places that were requested.

        Args:
            jobs: Their jobs.
            small: JSON up to this many bytes is read at once.

        Yields:
            In their order: the delivery, or the error that ``open`` has raised.
        """

        def one(job: JobRef) -> StoredResult | Exception:
            try:
                opened = self.open_arrival(job.delivery_id, self.result_uri_of(job))
                return opened.prefetched(small)
            except (RunqyError, WireBadDelivery) as error:
                return error

        with ThreadPoolExecutor(OPEN_AT_ONCE) as threads:
            yield from threads.map(one, jobs)

    def check_manifest(self, batch_id: str) -> None:
        """Check, before jobs are enqueued, that their manifest can be written.

        Args:
            batch_id: Id of the batch; an empty manifest is written.

        Raises:
            Misconfigured: The sink holds no manifests.
            SinkError: It cannot be written.
        """
        self.write_manifest(batch_id, io.BytesIO())

    def write_manifest(self, batch_id: str, lines: BinaryIO) -> str:  # noqa: ARG002 - for sinks that can
        """Store the manifest of a batch, in place of the one before.

        Args:
            batch_id: Id of the batch.
            lines: Its lines.

        Returns:
            Its URI, which ``open`` opens.

        Raises:
            Misconfigured: The sink holds no manifests.
            SinkError: It cannot be written.
        """
        raise Misconfigured(
            f"The sink {self.sink.uri!r} cannot hold the manifest of a batch, with one "
            "line per job. Name an object store for it, or the inbox: "
            "manifest='s3://bucket/prefix' or manifest='webhook'."
        )

    def open_url(self, delivery: Delivery, url: str) -> StoredResult:
        """Open a result that a delivery only names by a URL.

        Nothing is ever fetched by URL: a sink opens what is in the one place that its
        URI names.

        Raises:
            NotInSink: The URL is not in this sink.
        """
        raise NotInSink(
            f"Delivery {delivery.delivery_id} says that its result is at "
            f"{url.partition('?')[0]}. The sink {self.sink.uri!r} fetches nothing: "
            "name the place of the results, as in sink='s3://bucket/prefix', so that "
            "results are read only from there."
        )

    def link(self, uri: str, seconds: float) -> str | None:  # noqa: ARG002 - for sinks that can
        """Return a URL at which people find a result; None if there is none.

        Args:
            uri: Where the result is.
            seconds: How long the URL is to work.

        Raises:
            SinkError: The URL cannot be made at the moment.
        """
        return None

    @abc.abstractmethod
    def describe_timeout(self, job: JobRef) -> str:
        """Say where a missing delivery was looked for, and what to check."""


@dataclass(frozen=True, slots=True)
class _WaiterOfSink:
    """Makes the waiter of ``BoundSink.source``; equal ones share it.

    There may be thousands, and a closure takes more memory.
    """

    uri: str
    settings: Settings
    bound: BoundSink = field(compare=False)

    def __call__(self) -> Waiter:
        return Waiter(self.bound.source(), self.bound.interval)
