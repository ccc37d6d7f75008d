# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver the results of runqy task code to where the payload asks for them.

Nothing outside the standard library is imported here or below, and nothing is ever
written to stdout: that is the worker's protocol.
"""

from runqy_delivery.decorator import delivers
from runqy_delivery.errors import BadDelivery, DeliveryError, DeliveryUndeliverable
from runqy_delivery.progress import progress
from runqy_delivery.result import Result
from runqy_delivery.wire import WIRE_VERSION, Delivery, DeliveryRequest, JobError

__version__ = "0.1.0"

__all__ = [
    "WIRE_VERSION",
    "BadDelivery",
    "Delivery",
    "DeliveryError",
    "DeliveryRequest",
    "DeliveryUndeliverable",
    "JobError",
    "Result",
    "delivers",
    "progress",
]
