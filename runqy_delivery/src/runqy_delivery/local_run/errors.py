# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The errors of a local run; each message says what to do."""

from __future__ import annotations

from runqy_delivery.errors import DeliveryError


class WrongUsage(DeliveryError):
    """The command cannot be run: a file is missing, or the code does not start."""


class NoResponse(DeliveryError):
    """The task code started, but did not answer."""
