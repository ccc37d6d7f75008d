# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated path of S3Sink: import it from ``runqy_provider.sinks``."""

from __future__ import annotations

import warnings

from runqy_provider.sinks import S3Sink

__all__ = ["S3Sink"]

warnings.warn(
    "runqy_provider.sinks.s3 is deprecated: import S3Sink from runqy_provider.sinks.",
    DeprecationWarning,
    stacklevel=2,
)
