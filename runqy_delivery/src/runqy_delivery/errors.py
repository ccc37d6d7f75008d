# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on the far side.

DeliveryError
  + BadDelivery             a delivery or a delivery request that cannot be read
  + VerificationError       a signature that does not hold
  + DeliveryUndeliverable   nobody took the delivery: runqy should retry the job
  |   + DeliveryImpossible  it can never be made as things are set up
  + ResultRefused           this result can never be delivered: fail the job instead
"""

from __future__ import annotations


class DeliveryError(Exception):
    """A delivery went wrong."""


class BadDelivery(DeliveryError):
    """A delivery, or a delivery request, cannot be read."""


class VerificationError(DeliveryError):
    """The signature of a delivery does not hold."""


class DeliveryUndeliverable(DeliveryError):
    """Nobody took the delivery; task code raises it, so that runqy retries the job."""


class DeliveryImpossible(DeliveryUndeliverable):
    """The delivery can never be made as things are set up.

    A library, an address or a right is missing. It is reported as a failure, through
    every channel that the request names; where none of them works, runqy retries the
    job, as for any other delivery that nobody took.
    """


class ResultRefused(DeliveryError):
    """The result itself is at fault; trying again would change nothing."""
