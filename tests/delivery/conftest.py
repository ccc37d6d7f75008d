"""Fixtures for the worker side; its tests need only pytest, and no Airflow."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import pytest

from runqy_delivery import _retry
from tests.delivery.helpers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.delivery.helpers import HttpServer


def pytest_sessionstart() -> None:
    """Stop `make delivery` if its environment is not isolated."""
    if os.environ.get("RUNQY_DELIVERY_ALONE") and importlib.util.find_spec("airflow"):
        pytest.exit("Airflow is installed here: the environment is not isolated", 1)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A real HTTP server, which accepts every delivery by default."""
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between tries, and the retry budget to 5 seconds."""
    monkeypatch.setattr(_retry, "INITIAL_DELAY", 0.01)
    monkeypatch.setattr(_retry, "MAX_DELAY", 0.02)
    monkeypatch.setenv(_retry.RETRY_FOR_VARIABLE, "5")


@pytest.fixture
def _no_store_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the clients of object stores, so that only signed URLs can be used."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "obstore", None)
