"""Servers that tests start themselves, from packages of Debian and others."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str | None, package: str, how: str | None = None) -> str:
    """Return a server's program; without it, fail in CI and skip on a laptop.

    Args:
        program: Its path; None if it was not found.
        package: The package that has it.
        how: The command that installs it; by default Debian's.
    """
    if program is not None:
        return program
    message = f"{package} is not installed: {how or f'apt-get install {package}'}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def as_user(user: str) -> list[str]:
    """Return the prefix of a command with which root runs it as a user.

    Some servers refuse to run as root.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv") or "setpriv"
    return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups"]
