# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``s3://bucket/prefix``: an object, and a webhook that says it is there."""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlencode

from runqy_delivery import Delivery, DeliveryRequest
from runqy_provider.errors import Misconfigured, NoAccess
from runqy_provider.sinks import inbox_parcels
from runqy_provider.sinks.base import Access, Place, Sink
from runqy_provider.sinks.object_url import key_in_bucket
from runqy_provider.sinks.parcel import Parcel
from runqy_provider.sinks.s3_arrivals import (
    FAILED_SUFFIX,
    S3Arrivals,
    address,
    split_address,
)
from runqy_provider.sinks.s3_client import s3_client, s3_errors
from runqy_provider.waiting.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runqy_provider.sinks.base import Follow
    from runqy_provider.sinks.ticket import Ticket

#: S3's own limit for presigned URLs, in seconds.
LONGEST_PRESIGNED = 7 * 24 * 3600

#: With a webhook as the bell, listing is only the safety net: this many times rarer.
WITH_BELL = 6

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class S3Sink(Sink):
    """Results in S3, or in whatever speaks its API.

    Args:
        bucket: Name of the bucket.
        prefix: What keys begin with; a job's key is ``prefix/delivery_id``.
        presign: Give workers a presigned PUT URL, so that they need no credentials.
        aws_conn_id: The AWS connection; the runqy connection's where not given.
    """

    bucket: str
    prefix: str = ""
    presign: bool = True
    aws_conn_id: str | None = None

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for an S3 bucket. A sink in S3 is written "
                "s3://bucket/prefix."
            )
        if self.prefix != self.prefix.strip("/") or "//" in self.prefix:
            raise Misconfigured(
                f"The prefix {self.prefix!r} of an S3 sink must not begin or end with "
                "a slash, nor have two in a row."
            )

    @property
    def uri(self) -> str:
        """The sink as a text."""
        options = {} if self.presign else {"presign": "false"}
        if self.aws_conn_id is not None:
            options["aws_conn_id"] = self.aws_conn_id
        query = f"?{urlencode(options)}" if options else ""
        return address(self.bucket, self.prefix).rstrip("/") + query

    def check(self, access: Access) -> None:
        """Ask whether the bucket is there and ours, and the bell's inbox, if any."""
        aws = self._aws(access)
        with s3_errors(f"s3://{self.bucket}", aws, "use the bucket"):
            s3_client(aws).head_bucket(Bucket=self.bucket)
        if self._has_bell(access):
            inbox_parcels.ping(access)

    def request(
        self, access: Access, delivery_id: str, expires: float
    ) -> DeliveryRequest:
        """Ask for an object under our key, and for a webhook where one can come."""
        key = self._key(delivery_id)
        bell = self._has_bell(access)
        failed_key = None if bell else key + FAILED_SUFFIX
        return DeliveryRequest(
            delivery_id,
            sink="s3",
            url=address(self.bucket, key),
            bucket=self.bucket,
            key=key,
            put_url=self._presigned(access, key, expires),
            failed_key=failed_key,
            failed_put_url=self._presigned(access, failed_key, expires),
            webhook_url=inbox_parcels.webhook_url(access, delivery_id, expires)
            if bell
            else None,
            max_bytes=access.max_body if bell else None,
        )

    def places(self, access: Access, ticket: Ticket) -> Sequence[Place]:
        """Return the bucket, and the inbox where the webhook may come to."""
        aws, bell = self._aws(access), self._has_bell(access)
        sweep = access.object_sweep * (WITH_BELL if bell else 1)
        bucket = Place(
            ("s3", aws, sweep),
            lambda: Waiter(S3Arrivals(aws), sweep),
            address(self.bucket, self._key(ticket.delivery_id)),
        )
        if not bell:
            return [bucket]
        inbox = inbox_parcels.place(access, ticket.delivery_id, is_essential=False)
        return [inbox, bucket]

    def open(self, access: Access, where: str, follow: Follow | None = None) -> Parcel:
        """Open the object, by way of the inbox if the webhook came first."""
        if where.startswith(inbox_parcels.SCHEME):
            if follow is None:
                follow = functools.partial(self.follow, access)
            return inbox_parcels.open_letter(access, where, follow)
        bucket, key = split_address(where)
        if bucket != self.bucket:
            raise NoAccess(f"{where} is not in the bucket {self.bucket!r} of the sink.")
        parcel = self._open_object(access, key)
        if not key.endswith(FAILED_SUFFIX):
            return parcel
        delivery = Delivery.from_json(parcel.read())
        return Parcel.of_failure(delivery, where, parcel.delivered_at)

    def nothing_arrived(self, access: Access, ticket: Ticket) -> str:
        """Say which key nobody wrote to."""
        at = address(self.bucket, self._key(ticket.delivery_id))
        words = (
            f"No object came to {at} (listed with AWS connection "
            f"{self._aws(access)!r}). Check the log of the task code"
        )
        if self._has_bell(access):
            words = f"{inbox_parcels.looked_in(access, ticket.delivery_id)}. {words}"
        return words + "."

    def follow(self, access: Access, delivery: Delivery, url: str) -> Parcel:
        """Open the object that a URL means, if it is in our bucket."""
        aws = self._aws(access)
        key = key_in_bucket(url, self.bucket, s3_client(aws).meta.endpoint_url)
        if key is None:
            raise NoAccess(
                f"Delivery {delivery.delivery_id} says that its result lies outside "
                f"the bucket {self.bucket!r} of the sink ({url.partition('?')[0]}). It "
                "was not fetched: name the bucket that the task code uses as the sink."
            )
        parcel = self._open_object(access, key)
        if delivery.metadata is None:
            return parcel
        return Parcel(**{**vars(parcel), "metadata": delivery.metadata})

    def _open_object(self, access: Access, key: str) -> Parcel:
        aws = self._aws(access)
        at = address(self.bucket, key)
        client = s3_client(aws)
        with s3_errors(at, aws, "read"):
            head = client.head_object(Bucket=self.bucket, Key=key)

        def stream() -> BinaryIO:
            with s3_errors(at, aws, "read"):
                body: Any = client.get_object(Bucket=self.bucket, Key=key)["Body"]
            return cast("BinaryIO", body)

        return Parcel(
            where=at,
            delivered_at=head["LastModified"].timestamp(),
            content_type=head.get("ContentType") or "application/octet-stream",
            size=head["ContentLength"],
            stream=stream,
        )

    def _key(self, delivery_id: str) -> str:
        return f"{self.prefix}/{delivery_id}" if self.prefix else delivery_id

    def _aws(self, access: Access) -> str:
        return self.aws_conn_id or access.settings.aws_conn_id

    def _has_bell(self, access: Access) -> bool:
        return inbox_parcels.missing(access) is None

    def _presigned(self, access: Access, key: str | None, expires: float) -> str | None:
        if key is None or not self.presign:
            return None
        seconds = int(min(max(expires - time.time(), 60), LONGEST_PRESIGNED))
        aws = self._aws(access)
        with s3_errors(address(self.bucket, key), aws, "sign a URL for"):
            url = s3_client(aws).generate_presigned_url(
                "put_object",
                Params={"Bucket": self.bucket, "Key": key},
                ExpiresIn=seconds,
            )
        return str(url)


def s3_sink(bucket: str, path: str, options: dict[str, str]) -> S3Sink:
    """Return the sink that a URI means.

    Raises:
        Misconfigured: An option is unknown, or the names make no sense.
    """
    unknown = set(options) - {"presign", "aws_conn_id"}
    if unknown:
        raise Misconfigured(
            f"An S3 sink knows the options presign and aws_conn_id, not "
            f"{', '.join(sorted(unknown))}."
        )
    presign = options.get("presign", "true")
    if presign not in ("true", "false"):
        raise Misconfigured(f"presign of an S3 sink is true or false, not {presign!r}.")
    return S3Sink(
        bucket, path.strip("/"), presign == "true", options.get("aws_conn_id")
    )
