# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a look into an object store costs, by the libraries that could make it.

One listing of a folder on Azurite is what one look for all waiting tasks is. The peers
of obstore (ours) are Airflow's ObjectStoragePath over fsspec's adlfs, and Azure's own
client, which is also the floor of a listing in Python; each in a process of its own,
with what importing it costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from devtools.benchmarks.process_cost import memory
from devtools.benchmarks.servers import as_environment
from devtools.benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = (
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "devtools.benchmarks.object_stores",
)

#: Objects in the folder: so many listings are measured.
ROUNDS = {100: 20, 1000: 20, 10_000: 2}
QUICK_ROUNDS = {1000: 5}

LIBRARIES = {
    "obstore": "obstore (ours)",
    "path": "ObjectStoragePath (fsspec, adlfs)",
    "azure": "azure-storage-blob",
}


def lister(kind: str, address: str) -> Callable[[], int]:
    """Return a function that lists the folder and counts its objects."""
    if kind == "obstore":
        from runqy_provider.context import load_context  # noqa: PLC0415 - measured
        from runqy_provider.sinks.object_store.azure import AzureSink  # noqa: PLC0415 - measured

        store = AzureSink("results").store(load_context("runqy_default"))
        return lambda: len(store.list_folder("waits/").keys)
    if kind == "path":
        from airflow.sdk import ObjectStoragePath  # noqa: PLC0415 - measured
        from airflow.sdk.io import attach  # noqa: PLC0415 - measured
        from fsspec import filesystem  # noqa: PLC0415 - measured

        files: Any = filesystem("abfs", connection_string=address)
        attach("abfs", conn_id="bench", fs=files)
        path = ObjectStoragePath("abfs://results/waits", conn_id="bench")

        def listed() -> int:
            files.invalidate_cache()
            return sum(each.stat()["size"] > 0 for each in path.iterdir())

        return listed
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - for this process

    container = ContainerClient.from_connection_string(address, "results")
    return lambda: sum(1 for _ in container.list_blobs(name_starts_with="waits/"))


def measure(kind: str, address: str, objects: int, rounds: int) -> None:
    """List again and again, in a process of its own, and print what it took."""
    before, began = memory(), time.perf_counter()
    listed = lister(kind, address)
    if listed() != objects:
        raise SystemExit(f"{kind} listed {listed()} objects, not {objects}")
    first = time.perf_counter() - began
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        listed()
        times.append(time.perf_counter() - began)
    used = time.process_time()
    listed()
    print(
        json.dumps(
            {
                "first": first,
                "median": statistics.median(times),
                "cpu": time.process_time() - used,
                "memory": (memory() - before) / 1024,
            }
        )
    )


def run(*, quick: bool) -> Iterator[Table]:
    """Start Azurite, fill it, and measure each library."""
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - for this process

    from devtools.servers.azurite import running_azurite  # noqa: PLC0415 - heavy

    table = Table(
        "object_stores",
        "One listing of a folder on Azurite",
        (
            *("library", "objects", "median ms", "of ours", "CPU ms", "CPU of ours"),
            *("import + first s", "MiB"),
        ),
    )
    stored = 0
    with running_azurite() as azurite:
        azurite.create_container("results")
        address = azurite.connection_string
        for objects, rounds in (QUICK_ROUNDS if quick else ROUNDS).items():
            with ContainerClient.from_connection_string(address, "results") as folder:
                for number in range(stored, objects):
                    folder.upload_blob(f"waits/{number:06}", b"1")
            stored = objects
            _add_rows(table, address, objects, rounds)
            yield table


def _add_rows(table: Table, address: str, objects: int, rounds: int) -> None:
    connections = {
        "runqy_default": {"conn_type": "runqy", "host": "http://127.0.0.1:1"},
        "wasb_default": {"conn_type": "wasb", "extra": {"connection_string": address}},
    }
    ours: dict[str, float] = {}
    for kind, name in LIBRARIES.items():
        done = subprocess.run(
            [*COMMAND, kind, address, str(objects), str(rounds)],
            env={**os.environ, **as_environment(connections)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        ours = ours or row
        table.add(
            name,
            objects,
            row["median"] * 1000,
            row["median"] / ours["median"],
            row["cpu"] * 1000,
            row["cpu"] / ours["cpu"],
            row["first"],
            row["memory"],
        )


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
