# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The hook for results: read what was delivered, from whichever sink."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.context import get_access
from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    Misconfigured,
    RunqyError,
    TooLarge,
)
from runqy_provider.models import Reference, could_pass_for_reference
from runqy_provider.sanitize import storable
from runqy_provider.sinks import failure_channel
from runqy_provider.sinks import inbox as inbox_parcels
from runqy_provider.sinks.object_store.sink import ObjectSink
from runqy_provider.sinks.registry import sink_of
from runqy_provider.xcom_value import is_kept_by_xcom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_delivery import JobError
    from runqy_provider.context import Access
    from runqy_provider.sinks.base import Sink
    from runqy_provider.sinks.result import Parcel

#: What a task returns: see ``RunqyResultHook.collect``.
Returns = Literal["auto", "value", "reference"]
AUTO: Returns = "auto"
VALUE: Returns = "value"
REFERENCE: Returns = "reference"
RETURNS = (AUTO, VALUE, REFERENCE)


class StoredResult:
    """A result that is read only as far as it is asked for."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self.content_type = parcel.content_type
        self.size = parcel.size
        self.metadata = parcel.metadata

    def stream(self) -> BinaryIO:
        """Return a stream over the bytes; use it as a context manager."""
        return self._parcel.open()

    def bytes(self) -> bytes:
        """Return the bytes, all at once."""
        return self._parcel.read()

    def text(self, encoding: str = "utf-8") -> str:
        """Return the bytes as text."""
        return self._parcel.read().decode(encoding)

    def json(self) -> Any:
        """Return the JSON value."""
        return self._parcel.value()


class RunqyResultHook(BaseHook):
    """Read results of runqy jobs.

    ::

        with RunqyResultHook().read(ti.xcom_pull("render")).stream() as image:
            shutil.copyfileobj(image, out)

    :param runqy_conn_id: The runqy connection that the job was enqueued through.
    """

    conn_name_attr = "runqy_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "runqy"
    hook_name = "runqy"

    def __init__(self, runqy_conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.runqy_conn_id = runqy_conn_id

    @functools.cached_property
    def access(self) -> Access:
        """What is known of the connection; fetched once."""
        return get_access(self.runqy_conn_id)

    def read(
        self, reference: Reference | dict[str, Any], conn_id: str | None = None
    ) -> StoredResult:
        """Open the result that a task left a reference to.

        Args:
            reference: What the task returned, from XCom.
            conn_id: The connection of its object store, where it is not the default
                of that kind (for S3, the runqy connection's).

        Raises:
            Misconfigured: It is no reference.
            NotThere: The result is gone.
            NoAccess: It may not be read.
            SinkUnavailable: Its place is away.
        """
        known = Reference.from_xcom(reference)
        sink = sink_of(known.uri)
        if isinstance(sink, ObjectSink) and conn_id is not None:
            sink = sink.through(conn_id)
        with _our_errors():
            return StoredResult(sink.open(self.access, known.uri))

    def link(self, sink: Sink, reference: Reference | dict[str, Any]) -> str | None:
        """Return a URL under which people find a result, for ``[runqy] link_seconds``.

        Args:
            sink: The sink that it was asked for with.
            reference: What the task returned.

        Returns:
            None where there is no such URL, or none is wanted.

        Raises:
            SinkError: None can be made just now.
        """
        seconds = conf.getfloat("runqy", "link_seconds")
        if seconds <= 0:
            return None
        return sink.link(self.access, Reference.from_xcom(reference).uri, seconds)

    def collect(
        self, sink: Sink, where: str, delivery_id: str, returns: str = AUTO
    ) -> Any:
        """Return a result as it goes to XCom: its value, or a reference to it.

        Args:
            sink: The sink that it was asked for with.
            where: Where it arrived.
            delivery_id: Our id of the delivery.
            returns: ``auto``, a value where XCom can hold it; ``value``, a value or an
                error; ``reference``, always a reference.

        Returns:
            What goes to XCom: a JSON value, or a Reference as plain JSON.

        Raises:
            JobFailed: The task code reported a failure.
            SinkError: The result cannot be read.
            BadDelivery: The result is not what it says it is.
            TooLarge: A value was demanded, and XCom cannot hold it.
        """
        with _our_errors():
            parcel = failure_channel.open_arrival(self.access, sink, where)
        if parcel.error is not None:
            raise job_failed(delivery_id, parcel.error)
        limit = conf.getint("runqy", "xcom_limit")
        is_small = parcel.size is None or parcel.size <= limit
        if is_small and parcel.size is None:
            is_small = parcel.is_shorter_than(limit + 1)
        if returns != REFERENCE and parcel.is_json and is_small:
            value = parcel.value()
            # A value that task code made up to look like a reference would let it
            # choose what a downstream task reads with Airflow's rights.
            if is_kept_by_xcom(value) and not could_pass_for_reference(value):
                return value
        if returns == VALUE:
            raise _not_a_value(parcel, limit)
        reference = Reference(
            uri=parcel.where,
            content_type=storable(parcel.content_type),
            size=parcel.size,
            delivery_id=delivery_id,
            metadata=parcel.metadata if is_kept_by_xcom(parcel.metadata) else None,
        )
        return reference.to_xcom()

    def forget(self, where: str) -> None:
        """Let the inbox drop a delivery soon, because its value stands elsewhere now.

        Args:
            where: Where it arrived; for other places than the inbox nothing happens.

        Raises:
            SinkUnavailable: Redis is away; the delivery then stays for its whole time.
        """
        inbox_parcels.forget(self.access, where)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn what the wire format says of a delivery into an error of our tree."""
    try:
        yield
    except WireBadDelivery as error:
        if isinstance(error, RunqyError):
            raise
        raise BadDelivery(str(error)) from error


def check_returns(returns: str) -> None:
    """Refuse an argument ``returns`` that is not one of RETURNS.

    Raises:
        Misconfigured: It is not.
    """
    if returns not in RETURNS:
        raise Misconfigured(f"returns is one of {', '.join(RETURNS)}, not {returns!r}.")


def _not_a_value(parcel: Parcel, limit: int) -> TooLarge:
    if not parcel.is_json:
        why = f"is {parcel.content_type}, not JSON"
    elif parcel.size is not None and parcel.size > limit:
        why = f"has {parcel.size:,} bytes, more than [runqy] xcom_limit ({limit:,})"
    else:
        why = "holds something that Airflow's XCom cannot give back unchanged"
    return TooLarge(
        f"returns='value', but the result at {parcel.where} {why}. It is still there. "
        "Use returns='auto' and read the reference with RunqyResultHook, raise "
        "xcom_limit, or have the task code return less."
    )


def job_failed(delivery_id: str, error: JobError) -> JobFailed:
    """Return the handler's own error as one that Airflow shows."""
    words = f"{error.type}: {error.message}" if error.type else error.message
    if error.traceback:
        words = f"{words}\n\nTraceback of the task code:\n{error.traceback}"
    return JobFailed(
        storable(f"The job failed (delivery {delivery_id}): {words}"),
        error_type=error.type,
        traceback=error.traceback,
    )
