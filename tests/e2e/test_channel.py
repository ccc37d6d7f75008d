"""Deliveries that come close together on a channel, on Airflow with PostgreSQL."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from devtools.airflow import Airflow
from devtools.client import AirflowClient
from devtools.servers.postgres import running_postgres
from runqy_provider.settings import clear_settings
from runqy_sandbox.process.net import free_port
from runqy_sandbox.sandbox import Sandbox
from tests.e2e.bursts import deliver_in_bursts
from tests.support.stack import DAGS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_channel_deliveries_in_bursts_are_each_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    queues = {"queues": {"idle": {"priority": 1}}}
    with running_postgres() as database, Sandbox(queues) as sandbox:
        connections = sandbox.connections(
            f"http://127.0.0.1:{port}/runqy", secrets.token_hex(32)
        )
        connections["good"] = connections.pop("runqy_default")
        for conn_id, fields in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        clear_settings()
        with Airflow(
            tmp_path / "airflow",
            DAGS.parent / "tests" / "e2e" / "version_dags",
            connections,
            database=database.url.replace("postgresql://", "postgresql+psycopg2://"),
            port=port,
        ) as airflow:
            deliver_in_bursts(AirflowClient(airflow.url), "good")
