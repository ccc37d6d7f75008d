# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated path of AzureSink: import it from ``runqy_provider.sinks``."""

from __future__ import annotations

import warnings

from runqy_provider.sinks import AzureSink

__all__ = ["AzureSink"]

warnings.warn(
    "runqy_provider.sinks.abfs is deprecated: import AzureSink from "
    "runqy_provider.sinks.",
    DeprecationWarning,
    stacklevel=2,
)
