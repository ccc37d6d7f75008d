"""A Redis that accepts only TLS, and clients with a certificate."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devtools.servers.installed import require
from devtools.servers.redis_node import RedisNode, make_node
from runqy_sandbox.process.net import HOST
from runqy_sandbox.process.watchdog import Watchdog
from runqy_sandbox.redis_server import find_redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A configuration with an option that only a Redis with TLS has, and with a mistake in
#: its second line, so that no server starts.
CONFIG = "tls-port 0\nport -1\n"


@dataclass(frozen=True)
class Certificates:
    """Files: of the authority, and of one certificate for server and clients."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def client_options(self) -> dict[str, Any]:
        """Arguments for a redis-py client, and fields of an Airflow connection."""
        return {
            "ssl": True,
            "ssl_ca_certs": str(self.authority),
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.key),
        }


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate for the loopback address."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("authority", authority_key.public_key(), authority_key)
    certificate = _certificate("redis", key.public_key(), authority_key)
    files = Certificates(folder / "ca.pem", folder / "redis.pem", folder / "redis.key")
    pem = serialization.Encoding.PEM
    files.authority.write_bytes(authority.public_bytes(pem))
    files.certificate.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(
        key.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = dt.datetime.now(dt.timezone.utc)
    is_authority = name == "authority"
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("authority"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if is_authority:
        own_key = x509.SubjectKeyIdentifier.from_public_key(key)
        builder = builder.add_extension(own_key, critical=False)
    else:
        address = x509.IPAddress(ipaddress.ip_address(HOST))
        names = x509.SubjectAlternativeName([address])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _has_tls(program: str) -> bool:
    """Return whether a Redis was built with TLS."""
    found = subprocess.run(
        [program, "-"], input=CONFIG, capture_output=True, text=True, check=False
    )
    return "at line 2" in found.stdout + found.stderr


@contextlib.contextmanager
def running_tls_redis(directory: Path, files: Certificates) -> Iterator[RedisNode]:
    """Start a Redis, and end it; skip the test if the Redis has no TLS."""
    program = find_redis_server()
    require(program if _has_tls(program) else None, "redis-server")
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        node = make_node(
            directory,
            watchdog,
            *("--tls-cert-file", str(files.certificate)),
            *("--tls-key-file", str(files.key)),
            *("--tls-ca-cert-file", str(files.authority)),
            login=files.client_options,
            tls=True,
        )
        node.child.start()
        stack.callback(node.child.stop)
        yield node
