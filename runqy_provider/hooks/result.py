# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The hook for results: read what was delivered, from whichever sink."""

from __future__ import annotations

import functools
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runqy_delivery import BadDelivery as WireBadDelivery
from runqy_provider.airflow_compat import BaseHook, identity_of
from runqy_provider.connections import DEFAULT_CONN_ID
from runqy_provider.errors import (
    BadDelivery,
    JobFailed,
    Misconfigured,
    RunqyError,
    TooLarge,
)
from runqy_provider.inbox.callback_url import check_channel
from runqy_provider.inbox.keys import MOST_KEPT
from runqy_provider.models import (
    AUTO,
    REFERENCE,
    RETURNS,
    VALUE,
    Reference,
    looks_like_reference,
)
from runqy_provider.sanitize import storable
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend
from runqy_provider.sinks.registry import sink_for_result
from runqy_provider.xcom_value import is_kept_by_xcom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from runqy_delivery import JobError
    from runqy_provider.inbox.channel_reader import ChannelTaker
    from runqy_provider.settings import Settings
    from runqy_provider.sinks.base import Sink
    from runqy_provider.sinks.batch_result import BatchResult
    from runqy_provider.sinks.result import StoredResult

log = logging.getLogger(__name__)

#: Airflow's lists of callbacks for an execution of a task that ends without success.
_OTHER_ENDS = ("on_failure_callback", "on_retry_callback", "on_skipped_callback")


class RunqyResultHook(BaseHook):
    """Read results of runqy jobs.

    ::

        with RunqyResultHook().read(ti.xcom_pull("render")).stream() as image:
            shutil.copyfileobj(image, out)

    :param runqy_conn_id: The runqy connection to read through. None: the one that a
        reference names, else ``runqy_default``.
    """

    conn_name_attr = "runqy_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "runqy"
    hook_name = "runqy"

    def __init__(self, runqy_conn_id: str | None = None) -> None:
        super().__init__()
        self.runqy_conn_id = runqy_conn_id or DEFAULT_CONN_ID
        self._is_named = runqy_conn_id is not None
        self._others: dict[str, Settings] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a hook for a connection that was fetched already.

        If a reference names another connection, it is opened through that one.
        """
        hook = cls()
        hook.runqy_conn_id, hook.settings = settings.connection.conn_id, settings
        return hook

    @functools.cached_property
    def settings(self) -> Settings:
        """The connection and the options; fetched once."""
        return load_settings(self.runqy_conn_id)

    def read(
        self, reference: Reference | dict[str, Any], conn_id: str | None = None
    ) -> StoredResult:
        """Open the result that a task left a reference to.

        Args:
            reference: What the task returned, from XCom.
            conn_id: The connection of its object store, if it is not the default of
                that kind (for S3, the runqy connection's).

        Raises:
            Misconfigured: It is not a reference.
            NotThere: The result does not exist any more.
            NoAccess: It may not be read.
            SinkUnavailable: The sink is unavailable.
        """
        known = Reference.from_xcom(reference)
        sink = sink_for_result(known.uri)
        if conn_id is not None:
            sink = sink.with_connection(conn_id)
        with _our_errors():
            return sink.bind(self._settings_of(known)).open(known.uri)

    def _settings_of(self, reference: Reference) -> Settings:
        """Return the connection by which a reference is to be read."""
        named = reference.runqy_conn_id
        if self._is_named or named is None or named == self.runqy_conn_id:
            return self.settings
        if named not in self._others:
            self._others[named] = load_settings(named)
        return self._others[named]

    def link(self, sink: Sink, reference: Reference | dict[str, Any]) -> str | None:
        """Return a URL at which people find a result, for ``[runqy] link_seconds``.

        Args:
            sink: The sink that was requested.
            reference: What the task returned.

        Returns:
            None if no URL can be made, or none is wanted.

        Raises:
            SinkError: The URL cannot be made at the moment.
        """
        seconds = self.settings.config.link_seconds
        if seconds <= 0:
            return None
        known = Reference.from_xcom(reference)
        return sink.bind(self._settings_of(known)).link(known.uri, seconds)

    def collect(
        self, sink: Sink, delivery_id: str, uri: str, returns: str = AUTO
    ) -> Any:
        """Return a result as it goes to XCom: its value, or a reference to it.

        Args:
            sink: The sink that was requested.
            delivery_id: Our id of the delivery.
            uri: Where it arrived.
            returns: ``auto``, a value if XCom can hold it; ``value``, a value or an
                error; ``reference``, always a reference.

        Returns:
            What goes to XCom: a JSON value, or a Reference as plain JSON.

        Raises:
            JobFailed: The task code reported a failure.
            SinkError: The result cannot be read.
            BadDelivery: The result is not of the type that it claims.
            TooLarge: A value is required, and XCom cannot hold it.
        """
        return self.collect_with_reference(sink, delivery_id, uri, returns)[0]

    def collect_with_reference(
        self, sink: Sink, delivery_id: str, uri: str, returns: str = AUTO
    ) -> tuple[Any, Reference]:
        """Return a result as ``collect`` does, and a reference to it.

        Args:
            sink: The sink that was requested.
            delivery_id: Our id of the delivery.
            uri: Where it arrived.
            returns: See ``collect``.

        Returns:
            What goes to XCom, and the reference to the result; raises what ``collect``
            does.
        """
        with _our_errors():
            bound = sink.bind(self.settings)
            fetched = bound.open_arrived(delivery_id, uri)
        if fetched.log:
            self._show_log(fetched.log)
        if fetched.error is not None:
            raise job_failed(delivery_id, fetched.error)
        reference = self._reference_to(fetched, delivery_id)
        limit = self.settings.config.xcom_limit
        if returns != REFERENCE and fetched.is_json and _is_small(fetched, limit):
            value = fetched.json()
            # If task code made a value that looks like a reference, it could choose
            # what a downstream task reads with Airflow's rights.
            if is_kept_by_xcom(value) and not looks_like_reference(value):
                return value, reference
        if returns == VALUE:
            raise _not_a_value(fetched, limit)
        return reference.to_xcom(), reference

    def value_or_reference(
        self, fetched: StoredResult, delivery_id: str, small: int
    ) -> tuple[Any, Reference | None]:
        """Return the result of a job of a batch: its value, or a reference to it.

        Args:
            fetched: The delivery.
            delivery_id: Our id of it.
            small: How many bytes a value may have.

        Returns:
            The value and None, if it is JSON and small; else None and a reference.

        Raises:
            JobFailed: The task code reported a failure.
            BadDelivery: The result is not of the type that it claims.
        """
        if fetched.error is not None:
            raise job_failed(delivery_id, fetched.error)
        if fetched.is_json and _is_small(fetched, small):
            return fetched.json(), None
        return None, self._reference_to(fetched, delivery_id)

    def read_batch(
        self,
        reference: Reference | dict[str, Any],
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[BatchResult]:
        """Yield the results of a batch, in the order of its payloads.

        Args:
            reference: What ``RunqyBatchOperator`` returned, from XCom, if the results
                are too large for it or ``returns="reference"``.
            first: Number of the first job that is wanted, from 0.
            last: Number of the last one; None: up to the end.

        Raises:
            Misconfigured: It is not a reference.
            SinkError: The manifest cannot be read.
            BadDelivery: It is not the manifest of a batch.
        """
        from runqy_provider.sinks.batch_result import (  # noqa: PLC0415 - for batches only
            results_in,
        )

        with self.read(reference).stream() as manifest:
            yield from results_in(manifest, first, last)

    def _reference_to(self, fetched: StoredResult, delivery_id: str) -> Reference:
        metadata = fetched.metadata
        return Reference(
            uri=fetched.uri,
            content_type=storable(fetched.content_type),
            size=fetched.size,
            delivery_id=delivery_id,
            metadata=metadata if is_kept_by_xcom(metadata) else None,
            runqy_conn_id=self.runqy_conn_id,
        )

    def take(
        self,
        channel: str,
        consumer: str | None = None,
        *,
        with_failures: bool = False,
        most: int = MOST_KEPT,
    ) -> list[dict[str, Any]]:
        """Take the deliveries on a channel, in a running task.

        They are acknowledged when the task succeeds. Until then the task holds them: a
        retry of the task takes them again at once. Without a retry, other runs take
        them some minutes after the task's process has ended. So each consumer takes
        each delivery at least once, whichever event started the run.

        ::

            @task
            def handle():
                hook = RunqyResultHook()
                for delivery in hook.take("renders"):
                    image = hook.read(delivery["reference"]).bytes()

        Args:
            channel: The channel.
            consumer: For whom: each consumer gets all deliveries, and all tasks that
                name the same consumer share them. By default the DAG's id.
            with_failures: Whether failed jobs are of interest.
            most: How many the task may hold. A second call gives the same deliveries
                again, and others that came meanwhile.

        Returns:
            For each delivery the payload of its event, the oldest first: see
            ``DeliveryChannelTrigger``. ``read`` opens its ``reference``. An empty list
            if an earlier run has taken all.

        Raises:
            Misconfigured: No task runs here, or an argument is not valid.
            SinkUnavailable: Redis is unavailable.
            NoAccess: It denies access.
        """
        from airflow.sdk import get_current_context  # noqa: PLC0415 - heavy

        from runqy_provider.inbox.channel_reader import (  # noqa: PLC0415 - few need it
            ChannelTaker,
        )

        check_channel(channel)
        if most < 1:
            raise Misconfigured(f"take: most must be 1 or more, not {most!r}.")
        try:
            ti: Any = get_current_context()["ti"]
        except RuntimeError as error:
            raise Misconfigured(
                f"Could not take from channel {channel!r}: no task runs here. Call "
                "take in a task, such as a function with @task."
            ) from error
        inbox = InboxBackend(self.settings)
        taker = ChannelTaker(
            inbox.redis,
            inbox.namespace,
            channel,
            consumer or ti.dag_id,
            "/".join(map(str, identity_of(ti))),
        )
        entries = taker.take(most, with_failures=with_failures)
        log.info("Took %d deliveries from channel %r.", len(entries), channel)
        if entries:
            taker.hold()
            _acknowledge_at_success(ti, taker, [entry_id for entry_id, _ in entries])
        else:
            taker.close()
        return [event for _, event in entries]

    def _show_log(self, text: str) -> None:
        """Show what the job has logged; Airflow's page folds a group."""
        lines = storable(text).splitlines()
        for line in ("::group::Last lines of the job's log", *lines, "::endgroup::"):
            self.log.info("%s", line)

    def forget(self, uri: str) -> None:
        """Let the inbox drop a delivery soon, because its value is now in XCom.

        Args:
            uri: Where it arrived; outside the inbox nothing happens.

        Raises:
            SinkUnavailable: Redis is unavailable; the delivery stays for its whole TTL.
        """
        InboxBackend(self.settings).forget(uri)


def _acknowledge_at_success(ti: Any, taker: ChannelTaker, entry_ids: list[str]) -> None:
    """Let Airflow call us when the task has ended: only then its work is done."""

    def at_end(_context: Any, *, is_success: bool) -> None:
        try:
            if is_success:
                taker.acknowledge(entry_ids)
        except RunqyError as error:
            log.warning("Another run will take the same deliveries: %s", error)
        finally:
            taker.close()

    # For this execution only, as Airflow has copied the operator.
    for kind in ("on_success_callback", *_OTHER_ENDS):
        call = functools.partial(at_end, is_success=kind not in _OTHER_ENDS)
        setattr(ti.task, kind, [*getattr(ti.task, kind), call])


def _is_small(fetched: StoredResult, limit: int) -> bool:
    if fetched.size is None:
        return fetched.is_shorter_than(limit + 1)
    return fetched.size <= limit


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn an error of the wire format into the provider's error."""
    try:
        yield
    except WireBadDelivery as error:
        if isinstance(error, RunqyError):
            raise
        raise BadDelivery(str(error)) from error


def check_returns(returns: str) -> None:
    """Refuse an argument ``returns`` that is not one of RETURNS.

    Raises:
        Misconfigured: It is not one of them.
    """
    if returns not in RETURNS:
        raise Misconfigured(
            f"returns must be one of {', '.join(RETURNS)}, not {returns!r}."
        )


def _not_a_value(fetched: StoredResult, limit: int) -> TooLarge:
    if not fetched.is_json:
        why = f"is {fetched.content_type}, not JSON"
    elif fetched.size is not None and fetched.size > limit:
        why = f"has {fetched.size:,} bytes, more than [runqy] xcom_limit ({limit:,})"
    else:
        why = "contains something that Airflow's XCom cannot give back unchanged"
    return TooLarge(
        f"returns='value', but the result at {fetched.uri} {why}. The result still "
        "exists. Use returns='auto' and read the reference with RunqyResultHook, raise "
        "xcom_limit, or have the task code return less."
    )


def job_failed(delivery_id: str, error: JobError) -> JobFailed:
    """Return the handler's own error as one that Airflow shows."""
    message = f"{error.type}: {error.message}" if error.type else error.message
    if error.traceback:
        message = f"{message}\n\nTraceback of the task code:\n{error.traceback}"
    return JobFailed(
        storable(f"The job failed (delivery {delivery_id}): {message}"),
        error_type=error.type,
        traceback=error.traceback,
    )
