"""Deliveries that come close together on a channel, and what the runs of a DAG took."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from runqy_provider.hooks.runqy import RunqyHook
from runqy_provider.settings import load_settings
from runqy_provider.sinks.inbox import InboxBackend

if TYPE_CHECKING:
    from devtools.client import AirflowClient

#: The DAG that takes, and its channel; see ``version_dags``.
DAG, CHANNEL = "taking", "bursts"

#: Deliveries of one burst, and how many bursts.
EACH, BURSTS = 10, 5

#: Seconds that anything here may take on a loaded machine.
LIMIT = 240.0


def deliver_in_bursts(client: AirflowClient, conn_id: str) -> None:
    """Deliver results in bursts, and check that runs take each of them once.

    Nothing is delivered after the last burst: what its events do not bring must come
    by itself.

    Args:
        client: Airflow's API.
        conn_id: The runqy connection of the channel.
    """
    client.wait_for_dags({DAG})
    inbox = InboxBackend(load_settings(conn_id))
    results = list(range(EACH * BURSTS))
    with httpx.Client() as http, ThreadPoolExecutor(8) as pool:

        def deliver(result: int) -> None:
            delivery_id = RunqyHook.new_delivery_id(CHANNEL)
            url = inbox.webhook_url(delivery_id, time.time() + LIMIT)
            body = {"task_id": delivery_id, "result": result}
            http.post(url, json=body, timeout=60).raise_for_status()

        for first in range(0, len(results), EACH):
            list(pool.map(deliver, results[first : first + EACH]))
            # The next burst comes while this one's run begins, works or ends.
            runs = len(_runs(client))
            end = time.monotonic() + 5
            while len(_runs(client)) == runs and time.monotonic() < end:
                time.sleep(0.2)
    end = time.monotonic() + LIMIT
    while len(taken := _taken(client)) < len(results):
        assert time.monotonic() < end, f"missing: {set(results) - set(taken)}"
        time.sleep(1)
    assert Counter(taken) == Counter(results)


def _runs(client: AirflowClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/dags/{DAG}/dagRuns", limit=100)[
        "dag_runs"
    ]
    return found


def _taken(client: AirflowClient) -> list[int]:
    """Return what the tasks of all runs that succeeded have taken."""
    taken: list[Any] = []
    for run in _runs(client):
        if run["state"] == "success":
            for ti in client.task_instances(DAG, run["dag_run_id"]):
                taken += client.xcom(ti)
    return taken
