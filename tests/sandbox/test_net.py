# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the choice of free ports."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from runqy_sandbox.process import net

if TYPE_CHECKING:
    from pathlib import Path


def test_free_port_ephemeral_range_known_is_below_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "range"
    file.write_text("32768\t60999\n")
    monkeypatch.setattr(net, "EPHEMERAL_RANGE", file)

    assert all(net.MIN_PORT <= net.free_port() < 32768 for _ in range(20))


@pytest.mark.parametrize("content", ["1024\t65535\n", "", None])
def test_free_port_ephemeral_range_unknown_or_low_is_chosen_by_system(
    content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "range"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(net, "EPHEMERAL_RANGE", file)

    with socket.create_server((net.HOST, net.free_port())):
        pass


def test_free_port_skips_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((net.HOST, net.free_port())) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(net, "MIN_PORT", port)
        monkeypatch.setattr(net, "_first_ephemeral_port", lambda: port + 1)

        assert net.free_port() != port
