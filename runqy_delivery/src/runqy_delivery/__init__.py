# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deliver the results of runqy task code to the sinks that the payload names.

Importing this package imports the standard library only: the client of an object store,
a database or a broker is imported when a delivery needs it. Nothing is ever written to
stdout, because the worker's protocol uses it.
"""

from runqy_delivery.decorator import delivers
from runqy_delivery.errors import (
    BadDelivery,
    DeliveryError,
    DeliveryImpossible,
    DeliveryUndeliverable,
    ResultRefused,
)
from runqy_delivery.progress import progress
from runqy_delivery.result import Content, Result
from runqy_delivery.wire import WIRE_VERSION, Delivery, DeliveryRequest, JobError

__version__ = "0.3.0"

__all__ = [
    "WIRE_VERSION",
    "BadDelivery",
    "Content",
    "Delivery",
    "DeliveryError",
    "DeliveryImpossible",
    "DeliveryRequest",
    "DeliveryUndeliverable",
    "JobError",
    "Result",
    "ResultRefused",
    "delivers",
    "progress",
]
