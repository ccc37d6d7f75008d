"""Stores of sinks, and runs of tasks with an object sink."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from azure.storage.blob import generate_container_sas

from devtools.servers.azurite import ACCOUNT, KEY
from runqy_provider.settings import load_settings
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.registry import sink_from_uri
from tests.support import harness

if TYPE_CHECKING:
    from runqy_provider.sinks.object_store.base import ObjectStore
    from tests.support.harness import Run

#: Fields of runqy_default without which no webhook reports a delivery.
WITHOUT_WEBHOOK = ("callback_secret",)


def store_of(uri: str) -> ObjectStore:
    """Return the store of an object sink."""
    sink = sink_from_uri(uri)
    assert isinstance(sink, ObjectSink)
    return sink.store(load_settings("runqy_default"))


def run_of(
    sink: str, payload: Any = None, runqy_queue: str = "helper", **arguments: Any
) -> Run:
    """Return a run of a task with this sink."""
    return harness.run_of(payload, runqy_queue, sink=sink, **arguments)


def sas_of_container() -> str:
    """Return a SAS token for the container ``results``."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    sas: str = generate_container_sas(
        ACCOUNT, "results", account_key=KEY, permission="rlw", expiry=until
    )
    return sas
