# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The fields of a payload by which a job delivers its result to a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runqy_provider.errors import DeliveryIdTaken, Misconfigured
from runqy_provider.inbox.callback_url import check_delivery_id
from runqy_provider.inbox.channel import channel_of
from runqy_provider.models import JobRef
from runqy_provider.sinks.registry import sink_from_uri
from runqy_provider.waiters.race import poll_now

if TYPE_CHECKING:
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.registry import SinkArgument

#: Seconds for which a delivery is accepted after its wait has ended: a late result is
#: kept, and a retry of the task can still find it.
LATE_DELIVERY = 24 * 3600


class DeliveryFields:
    """Makes the delivery requests of jobs that deliver to one sink.

    Args:
        settings: The runqy connection and the options.
        sink: Where results are to be delivered.
        deadline: Until when they are waited for, in seconds since 1970.
    """

    def __init__(self, settings: Settings, sink: SinkArgument, deadline: float) -> None:
        self._settings = settings
        self._bound = sink_from_uri(sink).bind(settings)
        self._expires = deadline + LATE_DELIVERY
        self._is_warned = False

    @property
    def sink_uri(self) -> str:
        """URI of the sink."""
        return self._bound.sink.uri

    def check(self, delivery_id: str) -> None:
        """Check, before anything is enqueued, that results can be read.

        Args:
            delivery_id: Id of the delivery, or of one of several.

        Raises:
            Misconfigured: The id, or a field of the connection, is not valid.
            SinkError: The results could not be read later.
        """
        check_delivery_id(delivery_id)
        bound = self._bound
        if channel_of(delivery_id) and not bound.sink.delivers_by_webhook:
            raise Misconfigured(
                f"A delivery to a channel must reach the inbox, and the sink "
                f"{bound.sink.uri!r} has no webhook. Add it: "
                f"sink='{bound.sink.uri} webhook'."
            )
        bound.check()

    def check_is_new(self, delivery_id: str) -> None:
        """Check, before a job is enqueued, that its sink has no delivery with this id.

        The result of another job would look like that of the new one.

        Raises:
            DeliveryIdTaken: The sink has one.
            SinkError: The sink cannot be asked.
        """
        bound = self._bound
        try:
            targets = bound.all_targets(JobRef(delivery_id, self.sink_uri))
        except Misconfigured:
            return  # the job holds its result, under its own id
        found = poll_now([target for target in targets if not target.is_relayed])
        if found is not None:
            raise DeliveryIdTaken(
                f"Nothing was enqueued: the sink {self.sink_uri!r} has a delivery "
                f"{delivery_id} already, at {found.result_uri}. It would look like "
                "that of the new job. Choose another delivery_id for each job: "
                "RunqyHook.new_delivery_id()."
            )

    def of(self, delivery_id: str) -> dict[str, Any]:
        """Prepare the sink for a delivery, and return the fields that ask for it.

        Raises:
            SinkError: The sink could not be prepared.
        """
        request = self._bound.whole_request(delivery_id, self._expires)
        if request.webhook_url is not None and not self._is_warned:
            self._bound.inbox.warn_of_loopback()
            self._is_warned = True
        self._bound.prepare(delivery_id)
        return request.to_fields()
