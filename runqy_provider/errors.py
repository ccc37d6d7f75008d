# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on the near side.

RunqyError
  + Misconfigured       a connection lacks a field, or a field makes no sense
  + ServerUnavailable   the runqy server cannot be reached, or cannot reach its Redis
  + Rejected            the runqy server does not take the job
  |   + QueueNotFound
  |   + NotAllowed
  |   + InvalidPayload
  |   + PayloadTooLarge
  + JobFailed           the handler's own error, with its traceback
  + JobVanished         runqy does not know the job (any more)
  + DeliveryTimeout     no delivery by the deadline
  + HeartbeatTimeout    no sign of life for too long
  + SinkError           the place of the result
  |   + NoAccess
  |   + NotThere
  |   |   + ResultLost  it was there, or was to be, and is gone for good
  |   + TooLarge
  |   + SinkUnavailable
  + BadDelivery         a delivery came and cannot be used
"""

from __future__ import annotations

from runqy_delivery import BadDelivery as WireBadDelivery


class RunqyError(Exception):
    """Something about runqy went wrong."""


class Misconfigured(RunqyError, ValueError):
    """A connection, a setting or an argument makes no sense."""


class ServerUnavailable(RunqyError):
    """The runqy server cannot be reached, or cannot reach its Redis."""


class Rejected(RunqyError):
    """The runqy server does not take the job."""


class QueueNotFound(Rejected):
    """No such queue, or the queue has no default sub-queue."""


class NotAllowed(Rejected):
    """The API key is wrong, or it has the wrong role."""


class InvalidPayload(Rejected):
    """The payload is not JSON, or the queue's schema refuses it."""


class PayloadTooLarge(Rejected):
    """The payload is larger than the server takes."""


class JobFailed(RunqyError):
    """The task code failed.

    Args:
        message: The words, with type and text of the handler's error.
        error_type: Class name of the handler's error, if it said so.
        traceback: Traceback of the handler, if it sent one.
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


class JobVanished(RunqyError):
    """Runqy does not know the job, or has forgotten it."""


class DeliveryTimeout(RunqyError):
    """No delivery came by the deadline."""


class HeartbeatTimeout(RunqyError):
    """The job gave no sign of life for too long."""


class SinkError(RunqyError):
    """The place of the result is at fault."""


class NoAccess(SinkError):
    """The place of the result refuses us."""


class NotThere(SinkError):
    """The place of the result, or the result, does not exist."""


class ResultLost(NotThere):
    """The result is gone for good: only another job can bring one."""


class TooLarge(SinkError):
    """The result is larger than the sink, or the reader, takes."""


class SinkUnavailable(SinkError):
    """The place of the result cannot be reached just now."""


class BadDelivery(RunqyError, WireBadDelivery):
    """A delivery came and cannot be used."""


def by_name(name: str) -> type[RunqyError]:
    """Return the class of the error that a trigger event names.

    A trigger event is JSON: it can carry an error's name, not the error.
    """
    found = [kind for kind in _tree(RunqyError) if kind.__name__ == name]
    return found[0] if found else RunqyError


def _tree(root: type[RunqyError]) -> list[type[RunqyError]]:
    return [root, *(kind for sub in root.__subclasses__() for kind in _tree(sub))]
