# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``webhook``: the result is the body of a POST, kept in the inbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from runqy_delivery import DeliveryRequest
from runqy_provider.errors import Misconfigured
from runqy_provider.sinks.base import BoundSink, Sink
from runqy_provider.sinks.inbox import is_in_inbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from typing_extensions import Self

    from runqy_provider.models import JobRef
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.result import StoredResult, UrlOpener
    from runqy_provider.waiters.waiter import WaitTarget


@dataclass(frozen=True)
class WebhookSink(Sink):
    """Results by webhook: at once, and up to ``[runqy] max_body_bytes``."""

    is_inbox: ClassVar[bool] = True
    notification_field: ClassVar[str | None] = "webhook_url"

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        if uri != "webhook":
            raise Misconfigured(f"{uri!r} is not a valid sink. Write 'webhook'.")
        return cls()

    @classmethod
    def for_result(cls, uri: str) -> Self:  # noqa: ARG003 - one sink for all
        """Return the sink, which opens any delivery in the inbox."""
        return cls()

    @property
    def uri(self) -> str:
        return "webhook"

    @property
    def takes_progress(self) -> bool:
        """Whether progress can be reported: always."""
        return True

    def bind(self, settings: Settings) -> BoundWebhook:
        return BoundWebhook(self, settings)


class BoundWebhook(BoundSink):
    """Webhooks to the receiver of one connection."""

    def check(self) -> None:
        """Check that callback URLs can be made, and that the inbox works."""
        if self.inbox.config_error is not None:
            raise Misconfigured(self.inbox.config_error)
        self.inbox.check()

    def request(self, delivery_id: str, expires: float) -> DeliveryRequest:
        """Request a POST to a callback URL."""
        return DeliveryRequest(
            delivery_id,
            sink="webhook",
            webhook_url=self.inbox.webhook_url(delivery_id, expires),
            max_bytes=self.settings.config.max_body_bytes,
        )

    def result_uri(self, delivery_id: str) -> str:
        """Return the URI of the delivery in the inbox."""
        return self.inbox.uri(delivery_id)

    def owns(self, uri: str) -> bool:
        """Return whether a delivery is in the inbox."""
        return is_in_inbox(uri)

    def targets(self, job: JobRef) -> Sequence[WaitTarget]:
        return [self.inbox.target(job.delivery_id)]

    def open(self, uri: str, open_url: UrlOpener | None = None) -> StoredResult:
        return self.inbox.open(uri, open_url or self.open_url)

    def open_all(
        self, jobs: Sequence[JobRef], small: int
    ) -> Iterator[StoredResult | Exception]:
        return self.inbox.open_all(
            [job.delivery_id for job in jobs], small, self.open_url
        )

    def write_manifest(self, batch_id: str, lines: BinaryIO) -> str:
        """Store the manifest of a batch in the inbox."""
        return self.inbox.write_manifest(batch_id, lines)

    def describe_timeout(self, job: JobRef) -> str:
        """Say at which address no webhook was received."""
        return self.inbox.describe(job.delivery_id) + "."
