# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""What a look into an object store costs, by the libraries that could make it.

``python -m devtools.benchmarks.object_stores [OBJECTS]``: one listing of a folder with
OBJECTS results on Azurite, which is what one look for all waiting tasks is. In the same
run: obstore (ours), Airflow's ObjectStoragePath over fsspec's adlfs, and Azure's own
client; each in a process of its own, with what importing it costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = (
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "devtools.benchmarks.object_stores",
    "--child",
)
ROOT = Path(__file__).parents[2]
ROUNDS = 20

LIBRARIES = {
    "obstore": "obstore",
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


def measure(kind: str, address: str, objects: int) -> None:
    """List again and again, in a process of its own, and print what it took."""
    before, began = _memory(), time.perf_counter()
    listed = lister(kind, address)
    if listed() != objects:
        raise SystemExit(f"{kind} listed {listed()} objects, not {objects}")
    first = time.perf_counter() - began
    times = []
    for _ in range(ROUNDS):
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
                "memory": _memory() - before,
            }
        )
    )


def _memory() -> float:
    """Return this process's resident memory in MiB."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1]) / 1024


def main(objects: int = 1000) -> None:
    """Start Azurite, fill it, and measure each library."""
    from azure.storage.blob import ContainerClient  # noqa: PLC0415 - for this process

    from devtools.servers.azurite import running_azurite  # noqa: PLC0415 - heavy

    with running_azurite() as azurite:
        azurite.create_container("results")
        address = azurite.connection_string
        with ContainerClient.from_connection_string(address, "results") as container:
            for number in range(objects):
                container.upload_blob(f"waits/{number:06}", b"1")
        connections = {
            "RUNQY_DEFAULT": {"conn_type": "runqy", "host": "http://127.0.0.1:1"},
            "WASB_DEFAULT": {
                "conn_type": "wasb",
                "extra": {"connection_string": address},
            },
        }
        environment = {
            f"AIRFLOW_CONN_{name}": json.dumps(fields)
            for name, fields in connections.items()
        }
        results = {}
        for kind in LIBRARIES:
            done = subprocess.run(
                [*COMMAND, kind, address, str(objects)],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=300,
            )
            results[kind] = json.loads(done.stdout.splitlines()[-1])
    ours = results["obstore"]
    print(f"\nOne listing of a folder with {objects} objects on Azurite, of {ROUNDS}")
    print(
        f"{'library':<36}{'median ms':>10}{'ratio':>7}{'cpu ms':>8}{'ratio':>7}"
        f"{'import + first s':>18}{'MiB':>6}"
    )
    for kind, name in LIBRARIES.items():
        row = results[kind]
        print(
            f"{name:<36}{row['median'] * 1000:>10.1f}"
            f"{row['median'] / ours['median']:>7.1f}{row['cpu'] * 1000:>8.1f}"
            f"{row['cpu'] / ours['cpu']:>7.1f}{row['first']:>18.2f}"
            f"{row['memory']:>6.0f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*(int(argument) for argument in sys.argv[1:2]))
