# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated: ``RunqyHook.submit`` fetches the connection itself."""

from __future__ import annotations

import warnings

from runqy_provider.context import load_context as get_access

__all__ = ["get_access"]

warnings.warn(
    "runqy_provider.hooks.access is deprecated: use RunqyHook.submit, which fetches "
    "the connection.",
    DeprecationWarning,
    stacklevel=2,
)
