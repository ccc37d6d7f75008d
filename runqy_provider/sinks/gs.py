# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated path of GcsSink: import it from ``runqy_provider.sinks``."""

from __future__ import annotations

import warnings

from runqy_provider.sinks import GcsSink

__all__ = ["GcsSink"]

warnings.warn(
    "runqy_provider.sinks.gs is deprecated: import GcsSink from runqy_provider.sinks.",
    DeprecationWarning,
    stacklevel=2,
)
