# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The errors of the worker side, as one tree.

DeliveryError
  + BadDelivery             a delivery or a delivery request cannot be read
  + VerificationError       the signature of a delivery is not valid
  + DeliveryUndeliverable   the delivery failed: runqy should retry the job
  |   + DeliveryImpossible  it fails until the configuration is changed
  + ResultRefused           the sink never takes this result: the job fails
      + ResultNotEncodable  JSON has no form for a part of the result
"""

from __future__ import annotations

from typing import Any


class DeliveryError(Exception):
    """A delivery failed; the base class of all errors of this package."""


class BadDelivery(DeliveryError):
    """A delivery, or a delivery request, cannot be read."""


class VerificationError(DeliveryError):
    """The signature of a delivery is missing or not valid."""


class DeliveryUndeliverable(DeliveryError):
    """The delivery could not be made; it is raised to runqy, which retries the job."""


class DeliveryImpossible(DeliveryUndeliverable):
    """The delivery cannot be made until the configuration is changed.

    A library, a URL or a permission is missing. The error is delivered as a failure of
    the job, through every channel that the delivery request names. If none of them
    works, it is raised to runqy, which retries the job.
    """


class ResultRefused(DeliveryError):
    """The sink does not accept this result, and a retry would not change that."""


class ResultNotEncodable(ResultRefused):
    """JSON has no form for a part of the result; the message says which part.

    Attributes:
        returned: The whole result, for a person who wants to see what was lost.
    """

    returned: Any = None
