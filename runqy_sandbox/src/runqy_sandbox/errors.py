# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The exception that the sandbox raises."""

from __future__ import annotations


class SandboxError(RuntimeError):
    """The sandbox cannot be started or used; the message says what to change."""
