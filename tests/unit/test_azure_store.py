"""Which blob a ``result_url`` of Azure names."""

from __future__ import annotations

import json

import pytest

from runqy_provider.sinks.object_store.azure import AzureStore
from tests.support.caches import clear_clients

#: The endpoint of another Azure cloud, and that of an emulator with a path.
ENDPOINTS = (
    "https://acct.blob.core.chinacloudapi.cn",
    "http://127.0.0.1:10000/acct",
)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_azure_store_url_below_endpoint_names_blob(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "wasb", "login": "acct", "host": endpoint}
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", json.dumps(connection))
    clear_clients()
    store = AzureStore("results", "wasb_default")

    assert store.key_of(f"{endpoint}/results/runs/a%20b.json") == "runs/a b.json"
    assert store.key_of(f"{endpoint}/other/a.json") is None
