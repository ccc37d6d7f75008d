# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``webhook``: the result is the body of a POST and waits in the inbox."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import Misconfigured
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.base import Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.context import Access
    from runqy_provider.models import Ticket
    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.result import Parcel
    from runqy_provider.waiters.source import Place


@dataclass(frozen=True)
class WebhookSink(Sink):
    """Results by webhook: small to middling ones, at once."""

    is_inbox: ClassVar[bool] = True

    @property
    def uri(self) -> str:
        """The sink as a text."""
        return "webhook"

    @property
    def takes_progress(self) -> bool:
        """True: a webhook, if one is set up, is told."""
        return True

    def check(self, access: Access) -> None:
        """Ask whether deliveries can be addressed, and the inbox be reached."""
        words = inbox_parcels.missing(access)
        if words is not None:
            raise Misconfigured(words)
        inbox_parcels.check(access)

    def request(
        self, access: Access, delivery_id: str, expires: float
    ) -> DeliveryRequest:
        """Ask for a POST to a capability URL."""
        return DeliveryRequest(
            delivery_id,
            sink="webhook",
            webhook_url=inbox_parcels.webhook_url(access, delivery_id, expires),
            max_bytes=access.max_body,
        )

    def where(self, access: Access, delivery_id: str) -> str:
        """Return the delivery's address in the inbox."""
        return inbox_parcels.where(access, delivery_id)

    def owns(self, where: str) -> bool:
        """True for what is in the inbox."""
        return where.startswith(inbox_parcels.SCHEME)

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the inbox."""
        return [inbox_parcels.place(access, ticket.delivery_id)]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open the delivery in the inbox."""
        if follow is None:
            follow = functools.partial(self.follow, access)
        return inbox_parcels.open_letter(access, where, follow)

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say which address nobody delivered to."""
        return inbox_parcels.looked_in(access, ticket.delivery_id) + "."
