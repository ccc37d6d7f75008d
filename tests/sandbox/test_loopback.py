"""Ports for servers that cannot take port 0."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from runqy_sandbox.process import net as loopback

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_no_outgoing_connection_can_take_a_port_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "range"
    said.write_text("32768\t60999\n")
    monkeypatch.setattr(loopback, "OUTGOING", said)

    assert all(loopback.LOWEST <= loopback.free_port() < 32768 for _ in range(20))


def test_where_no_port_is_kept_back_the_system_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "range"
    for text in ("1024\t65535\n", "", None):
        if text is not None:
            said.write_text(text)
        monkeypatch.setattr(
            loopback, "OUTGOING", said if text is not None else said / "x"
        )
        with socket.create_server((loopback.HOST, loopback.free_port())):
            pass


def test_a_port_that_is_in_use_is_not_given_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server((loopback.HOST, loopback.free_port())) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(loopback, "LOWEST", port)
        monkeypatch.setattr(loopback, "_first_outgoing", lambda: port + 1)

        assert loopback.free_port() != port
