"""Azure's Blob Storage on a free port: Azurite, by the makers of the real one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from azure.storage.blob import BlobServiceClient

from devtools.servers.installed import require
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The account that Azurite documents for everybody.
ACCOUNT = "devstoreaccount1"
KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq"
    "/K1SZFPTOtr/KBHBeksoGMGw=="
)

LOCAL = Path(__file__).parents[2] / ".tools/azurite/node_modules/.bin/azurite-blob"


@dataclass
class Azurite:
    """A running server."""

    url: str
    child: Child

    @property
    def connection_string(self) -> str:
        """What Azure's own clients want."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint={self.url};"
        )

    def create_container(self, name: str) -> None:
        """Create a container."""
        with BlobServiceClient.from_connection_string(self.connection_string) as client:
            client.create_container(name)


@contextmanager
def running_azurite() -> Iterator[Azurite]:
    """Start a server, and remove all of it at the end."""
    found = str(LOCAL) if LOCAL.exists() else shutil.which("azurite-blob")
    program = require(
        found, "azurite", "npm install --prefix .tools/azurite azurite@3.37.0"
    )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="runqy-azurite-") as home:
        command = [program, "--blobHost=127.0.0.1", f"--blobPort={port}"]
        command += ["--inMemoryPersistence"]
        command += ["--skipApiVersionCheck", "--disableTelemetry"]

        def answers(_pid: int) -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/").status_code > 0
            return False

        watchdog = Watchdog()
        child = Child(
            Program("Azurite", command, answers), Path(home) / "log", watchdog
        )
        try:
            child.start()
            yield Azurite(f"http://127.0.0.1:{port}/{ACCOUNT}", child)
        finally:
            child.stop()
            watchdog.close()
