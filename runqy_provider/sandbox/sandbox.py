# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Deprecated path of Sandbox: import it from ``runqy_sandbox.sandbox``."""

from __future__ import annotations

import warnings

from runqy_sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]

warnings.warn(
    "runqy_provider.sandbox.sandbox is deprecated: import Sandbox from "
    "runqy_sandbox.sandbox.",
    DeprecationWarning,
    stacklevel=2,
)
