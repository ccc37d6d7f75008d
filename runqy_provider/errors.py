# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The errors of this provider, on the Airflow side.

RunqyError
  + Misconfigured       a connection, an option or an argument is not valid
  |   + DeliveryIdTaken the sink has a delivery with this id already
  + ServerUnavailable   the runqy server cannot be reached, or cannot reach its Redis
  + Rejected            the runqy server refuses the job
  |   + QueueNotFound
  |   + NotAllowed
  |   + InvalidPayload
  |   + PayloadTooLarge
  + JobFailed           the handler's own error, with its traceback
  + BatchFailed         too many jobs of a batch have failed
  + JobVanished         runqy does not know the job (any more)
  + DeliveryTimeout     no delivery by the deadline
  + HeartbeatTimeout    no sign of life for too long
  + SinkError           the sink, or the result in it, cannot be used
  |   + NoAccess
  |   |   + NotInSink   a delivery names a result outside its sink
  |   + NotThere
  |   |   + ResultLost  the result is gone for good
  |   + TooLarge
  |   + SinkUnavailable
  + BadDelivery         a delivery arrived and cannot be used
"""

from __future__ import annotations

from runqy_delivery import BadDelivery as WireBadDelivery


class RunqyError(Exception):
    """Base class of all errors of this provider."""


class Misconfigured(RunqyError, ValueError):
    """A connection, an option or an argument is not valid."""


class DeliveryIdTaken(Misconfigured):
    """The sink has a delivery with this id already; nothing was enqueued."""


class ServerUnavailable(RunqyError):
    """The runqy server cannot be reached, or cannot reach its Redis."""


class Rejected(RunqyError):
    """The runqy server refuses the job."""


class QueueNotFound(Rejected):
    """The queue does not exist, or has no default sub-queue."""


class NotAllowed(Rejected):
    """The API key is wrong, or it has the wrong role."""


class InvalidPayload(Rejected):
    """The payload is not JSON, or the queue's schema refuses it."""


class PayloadTooLarge(Rejected):
    """The payload is larger than the server accepts."""


class JobFailed(RunqyError):
    """The task code failed.

    Args:
        message: The message, with type and text of the handler's error.
        error_type: Class name of the handler's error, if it was delivered.
        traceback: Traceback of the handler, if it was delivered.
    """

    def __init__(
        self,
        message: str,
        *,
        error_type: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.traceback = traceback


class BatchFailed(RunqyError):
    """Too many jobs of a batch have failed."""


class JobVanished(RunqyError):
    """Runqy does not know the job, or has forgotten it.

    Args:
        message: What has happened.
        advice: What to check.
        seen: What was seen, and where.
        has_trace: False if runqy does not know the job at all, as after its Redis was
            emptied.
    """

    def __init__(
        self,
        message: str = "",
        *,
        advice: str = "",
        seen: str = "",
        has_trace: bool = True,
    ) -> None:
        super().__init__(" ".join(part for part in (message, advice, seen) if part))
        self._message, self._seen = message, seen
        self.has_trace = has_trace

    def because(self, reason: str) -> JobVanished:
        """Return the same error with a known reason in place of the advice."""
        return JobVanished(self._message, advice=reason, seen=self._seen)


class DeliveryTimeout(RunqyError):
    """No delivery arrived by the deadline."""


class HeartbeatTimeout(RunqyError):
    """The job was silent for too long."""


class SinkError(RunqyError):
    """The sink, or the result in it, cannot be used."""


class NoAccess(SinkError):
    """The sink denies access."""


class NotInSink(NoAccess):
    """A delivery names a result outside its sink, which is not read."""


class NotThere(SinkError):
    """The sink, or the result in it, does not exist."""


class ResultLost(NotThere):
    """The result is gone for good: only another job can deliver one."""


class TooLarge(SinkError):
    """The result is larger than the sink, or the reader, accepts."""


class SinkUnavailable(SinkError):
    """The sink is unavailable at the moment."""


class BadDelivery(RunqyError, WireBadDelivery):
    """A delivery arrived and cannot be used."""


def by_name(name: str) -> type[RunqyError]:
    """Return the class of the error that a trigger event names.

    A trigger event is JSON: it can carry an error's name, not the error.
    """
    found = [kind for kind in _tree(RunqyError) if kind.__name__ == name]
    return found[0] if found else RunqyError


def _tree(root: type[RunqyError]) -> list[type[RunqyError]]:
    return [root, *(kind for sub in root.__subclasses__() for kind in _tree(sub))]
