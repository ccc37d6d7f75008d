# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``abfs://container/prefix``: Azure Blob Storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import unquote, urlsplit

from obstore.store import AzureStore as Client

from runqy_provider.connections import extra_of
from runqy_provider.errors import BadDelivery, Misconfigured, NoAccess
from runqy_provider.sinks.object_store._obstore import (
    CLIENT,
    RETRIES,
    ObstoreStore,
    refuse_fields,
)
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.object_store.sink import ObjectSink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import AzureConfig

    from runqy_provider.connections import ConnectionLike
    from runqy_provider.context import Access

_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")


@dataclass(frozen=True)
class AzureSink(ObjectSink):
    """Results in Azure Blob Storage.

    Args:
        bucket: Name of the container.
        prefix: What names begin with; a job's is ``prefix/delivery_id``.
        presign: Give workers a PUT URL with a SAS, so that they need no credentials.
        wasb_conn_id: The Azure Blob Storage connection.
    """

    scheme: ClassVar[str] = "abfs"
    conn_option: ClassVar[str | None] = "wasb_conn_id"

    wasb_conn_id: str | None = None

    def store(self, access: Access) -> AzureStore:  # noqa: ARG002 - has a connection of its own
        """Return the container."""
        return AzureStore(self.bucket, self.wasb_conn_id or "wasb_default")

    def _check_bucket(self) -> None:
        if not _CONTAINER.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for a container of Azure Blob Storage. A "
                "sink there is written abfs://container/prefix; the account is the "
                "connection's."
            )


#: Without this header Azure refuses a PUT of a whole blob.
PUT_HEADERS = {"x-ms-blob-type": "BlockBlob"}

_HOSTS = (".blob.core.windows.net", ".dfs.core.windows.net")

#: What a URL must quote. obstore signs the quoted name, Azure checks the plain one, and
#: refuses the URL.
_UNSIGNABLE = re.compile(r"""[^!-~]|["#%<>?\\^`{}]""")

_UNKNOWN = ("managed_identity_client_id", "workload_identity_tenant_id")


@dataclass(frozen=True)
class AzureStore(ObstoreStore):
    """A container in Azure Blob Storage."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"abfs://{self.bucket}"

    @property
    def access_hint(self) -> str:
        """What its rights come from."""
        return f"Azure Blob Storage connection {self.conn_id!r}"

    def make(self, connection: ConnectionLike) -> Client:
        """Return the client: with the connection's key, SAS or service principal."""
        extra = extra_of(connection)
        unknown = [name for name in _UNKNOWN if extra.get(name)]
        refuse_fields(
            connection,
            unknown,
            "an account's key, connection_string, sas_token, a service principal with "
            "tenant_id, and what the machine has",
        )
        config = cast("AzureConfig", _config(connection, extra))
        plain = str(config.get("endpoint", "")).startswith("http://")
        return Client(
            self.bucket,
            config=config,
            client_options={**CLIENT, "allow_http": plain},
            retry_config=RETRIES,
        )

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        """Return a URL to PUT a blob to, with the header that Azure asks for."""
        return SignedPut(self._signed("PUT", key, seconds), PUT_HEADERS)

    def sign_get(self, key: str, seconds: int) -> str:
        """Return a URL to GET a blob from."""
        return self._signed("GET", key, seconds)

    def key_of(self, url: str) -> str | None:
        """Return the name that a URL means in this container of this account."""
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
        except ValueError as error:
            raise BadDelivery(f"result_url is not a URL: {error}") from error
        path = unquote(parts.path.lstrip("/"))
        account, endpoint = self._account()
        if parts.scheme in ("abfs", "abfss", "az"):
            mine = (self.bucket, *(f"{self.bucket}@{account}{end}" for end in _HOSTS))
            return (path or None) if parts.netloc in mine else None
        if parts.scheme not in ("http", "https"):
            return None
        if parts.scheme == "https" and host in (f"{account}{end}" for end in _HOSTS):
            first, _, key = path.partition("/")
            return (key or None) if first == self.bucket else None
        if endpoint and url.startswith(f"{endpoint}/{self.bucket}/"):
            base = urlsplit(endpoint).path.strip("/")
            return path.removeprefix(f"{base}/{self.bucket}/") or None
        return None

    def _signed(self, method: str, key: str, seconds: int) -> str:
        found = _UNSIGNABLE.search(key)
        if found:
            raise NoAccess(
                f"Could not sign a URL for {self.url}/{key}: no signed URL can be made "
                f"for a name with {found[0]!r}. Choose another prefix, or do without "
                "signed URLs (sink option presign=false), with rights of the workers' "
                "own."
            )
        return self._sign(method, key, seconds)

    def _account(self) -> tuple[str, str | None]:
        config = self._client().config
        return str(config.get("account_name", "")), config.get("endpoint")


def _config(connection: ConnectionLike, extra: Mapping[str, Any]) -> dict[str, Any]:
    text = extra.get("connection_string")
    if text:
        return _of_connection_string(connection, str(text))
    config: dict[str, Any] = {}
    host = (connection.host or "").strip().rstrip("/")
    if host:
        endpoint = host if "://" in host else f"https://{host}"
        if host.removeprefix("https://").endswith(_HOSTS):
            config["account_name"] = host.removeprefix("https://").partition(".")[0]
        elif "." in host or "://" in host:
            config["endpoint"] = endpoint
        else:
            config["account_name"] = host
    if extra.get("tenant_id"):
        config["tenant_id"] = extra["tenant_id"]
        config["client_id"] = connection.login
        config["client_secret"] = connection.password
    else:
        if connection.login:
            config["account_name"] = connection.login
        if connection.password:
            config["account_key"] = connection.password
    if extra.get("sas_token"):
        config["sas_key"] = str(extra["sas_token"]).lstrip("?")
        config.pop("account_key", None)
    if not config.get("account_name"):
        raise Misconfigured(
            f"Connection {connection.conn_id!r} names no storage account: put it into "
            "the login (Blob Storage Login), or its URL into the host."
        )
    return {name: value for name, value in config.items() if value}


def _of_connection_string(connection: ConnectionLike, text: str) -> dict[str, Any]:
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    config = {
        "account_name": parts.get("AccountName"),
        "account_key": parts.get("AccountKey"),
        "sas_key": parts.get("SharedAccessSignature"),
        "endpoint": parts.get("BlobEndpoint"),
    }
    known = {name: value for name, value in config.items() if value}
    if "account_name" not in known:
        raise Misconfigured(
            f"The connection_string of connection {connection.conn_id!r} has no "
            "AccountName."
        )
    return known
