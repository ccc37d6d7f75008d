# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated path of FileSink: import it from ``runqy_provider.sinks``."""

from __future__ import annotations

import warnings

from runqy_provider.sinks import FileSink

__all__ = ["FileSink"]

warnings.warn(
    "runqy_provider.sinks.file is deprecated: import FileSink from "
    "runqy_provider.sinks.",
    DeprecationWarning,
    stacklevel=2,
)
