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
from runqy_provider.errors import Misconfigured, NoAccess
from runqy_provider.sinks.object_store._obstore import (
    ObstoreStore,
    refuse_fields,
)
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.uri import key_of_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from obstore.store import AzureConfig

    from runqy_provider.connections import ConnectionLike
    from runqy_provider.settings import Settings


#: Without this header Azure refuses a PUT of a whole blob.
PUT_HEADERS = {"x-ms-blob-type": "BlockBlob"}

#: Schemes of the URIs of blobs.
_SCHEMES = ("abfs", "abfss", "az")

#: What follows the name of an account in its public hosts.
_HOST_SUFFIXES = (".blob.core.windows.net", ".dfs.core.windows.net")

#: Characters that a URL must quote. obstore signs the quoted name but Azure checks the
#: unquoted one, so it would refuse the URL.
_UNSIGNABLE = re.compile(r"""[^!-~]|["#%<>?\\^`{}]""")

#: Fields of an Azure connection that sinks do not support.
_UNSUPPORTED = ("managed_identity_client_id", "workload_identity_tenant_id")


@dataclass(frozen=True)
class AzureSink(ObjectSink):
    """Results in Azure Blob Storage.

    Args:
        bucket: Name of the container.
        prefix: What blob names begin with; a job's blob is ``prefix/delivery_id``.
        presign: Give workers a PUT URL with a SAS, so that they need no credentials.
        wasb_conn_id: The Azure Blob Storage connection.
    """

    scheme: ClassVar[str] = "abfs"
    bucket_kind: ClassVar[str] = "a container of Azure Blob Storage"
    bucket_names: ClassVar[str] = r"[a-z0-9](?:-?[a-z0-9]){2,62}"
    conn_option: ClassVar[str | None] = "wasb_conn_id"

    wasb_conn_id: str | None = None

    def store(self, settings: Settings) -> AzureStore:  # noqa: ARG002 - not in the runqy connection
        return AzureStore(self.bucket, self.wasb_conn_id or "wasb_default")


@dataclass(frozen=True)
class AzureStore(ObstoreStore):
    """A container in Azure Blob Storage."""

    scheme: ClassVar[str] = "abfs"
    service: ClassVar[str] = "Azure Blob Storage"
    client_class: ClassVar[Callable[..., Any]] = Client

    def read_config(self, connection: ConnectionLike) -> tuple[AzureConfig, bool]:
        """Return the connection's key, SAS or service principal."""
        extra = extra_of(connection)
        unsupported = [name for name in _UNSUPPORTED if extra.get(name)]
        refuse_fields(
            connection,
            unsupported,
            "an account key, connection_string, sas_token, a service principal with "
            "tenant_id, the machine's own credentials",
        )
        config = cast("AzureConfig", _config(connection, extra))
        is_plain = str(config.get("endpoint", "")).startswith("http://")
        return config, is_plain

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        """Return a URL to PUT a blob to, and the header that Azure requires."""
        return SignedPut(self._signed("PUT", key, seconds), PUT_HEADERS)

    def sign_get(self, key: str, seconds: int) -> str:
        return self._signed("GET", key, seconds)

    def key_of(self, url: str) -> str | None:
        """Return the name of the blob that a URL names; None: not in this container.

        The URL may be that of a blob in this account, or below the endpoint of the
        connection.
        """
        account, endpoint = self._account()
        root = f"{endpoint}/{self.bucket}/"
        if endpoint and url.startswith(root):
            path = unquote(urlsplit(url).path)
            return path.removeprefix(urlsplit(root).path) or None
        hosts = [f"{account}{suffix}" for suffix in _HOST_SUFFIXES]
        containers = [self.bucket, *(f"{self.bucket}@{host}" for host in hosts)]
        roots = {f"{scheme}://{name}": "" for scheme in _SCHEMES for name in containers}
        roots |= {f"https://{host}": f"{self.bucket}/" for host in hosts}
        return key_of_url(url, roots)

    def _signed(self, method: str, key: str, seconds: int) -> str:
        found = _UNSIGNABLE.search(key)
        if found:
            raise NoAccess(
                f"Could not sign a URL for {self.url}/{key}: Azure accepts no signed "
                f"URL for a name with {found[0]!r}. Choose another prefix, or turn "
                "signed URLs off (sink option presign=false) and give the workers "
                "credentials of their own."
            )
        return self._sign(method, key, seconds)

    def _account(self) -> tuple[str, str | None]:
        """Return the name of the account, and its endpoint if it has its own."""
        config = self._client().config
        return str(config.get("account_name", "")), config.get("endpoint")


def _config(connection: ConnectionLike, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return obstore's configuration from the fields of a connection.

    Raises:
        Misconfigured: The connection does not name a storage account.
    """
    text = extra.get("connection_string")
    if text:
        return _parse_connection_string(connection, str(text))
    config = {**_parse_host(connection), **_credentials(connection, extra)}
    if extra.get("sas_token"):
        config["sas_key"] = str(extra["sas_token"]).lstrip("?")
        config.pop("account_key", None)
    if not config.get("account_name"):
        raise Misconfigured(
            f"Connection {connection.conn_id!r} names no storage account. Put its name "
            "into the login (Blob Storage Login), or its URL into the host."
        )
    return {name: value for name, value in config.items() if value}


def _parse_host(connection: ConnectionLike) -> dict[str, Any]:
    """Return the account or the endpoint that the host names.

    The host is the name of an account, the URL of one, or another endpoint.
    """
    host = (connection.host or "").strip().rstrip("/")
    bare = host.removeprefix("https://")
    if bare.endswith(_HOST_SUFFIXES):
        return {"account_name": bare.partition(".")[0]}
    if "://" in host:
        return {"endpoint": host}
    if "." in host:
        return {"endpoint": f"https://{host}"}
    return {"account_name": host} if host else {}


def _credentials(
    connection: ConnectionLike, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the credentials in login and password: a key or a service principal's."""
    if extra.get("tenant_id"):
        return {
            "tenant_id": extra["tenant_id"],
            "client_id": connection.login,
            "client_secret": connection.password,
        }
    found = {"account_name": connection.login, "account_key": connection.password}
    return {name: value for name, value in found.items() if value}


def _parse_connection_string(connection: ConnectionLike, text: str) -> dict[str, Any]:
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    config = {
        "account_name": parts.get("AccountName"),
        "account_key": parts.get("AccountKey"),
        "sas_key": parts.get("SharedAccessSignature"),
        "endpoint": parts.get("BlobEndpoint"),
    }
    config = {name: value for name, value in config.items() if value}
    if "account_name" not in config:
        raise Misconfigured(
            f"The connection_string of connection {connection.conn_id!r} has no "
            "AccountName. Copy the whole string from the Azure portal."
        )
    return config
