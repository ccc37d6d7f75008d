# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage, by way of Airflow's Google Cloud connections."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from obstore.store import GCSStore

from runqy_provider.errors import BadDelivery
from runqy_provider.settings import extra_of
from runqy_provider.sinks.objects.obstore_store import (
    CLIENT,
    RETRIES,
    ObstoreStore,
    refuse_fields,
)
from runqy_provider.sinks.objects.store import SignedPut

if TYPE_CHECKING:
    from obstore.store import GCSConfig

    from runqy_provider.settings import ConnectionLike

HOST = "storage.googleapis.com"

_UNKNOWN = (
    "impersonation_chain",
    "key_secret_name",
    "credential_config_file",
    "idp_issuer_url",
)


@dataclass(frozen=True)
class GoogleStore(ObstoreStore):
    """A bucket in Google Cloud Storage."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"gs://{self.bucket}"

    @property
    def access_hint(self) -> str:
        """What its rights come from."""
        return f"Google Cloud connection {self.conn_id!r}"

    def make(self, connection: ConnectionLike) -> GCSStore:
        """Return the client: with the connection's key, else what the machine has."""
        extra = extra_of(connection)
        unknown = [name for name in _UNKNOWN if extra.get(name)]
        refuse_fields(
            connection,
            unknown,
            "keyfile_dict, key_path and Google's application default credentials",
        )
        key, path = extra.get("keyfile_dict"), extra.get("key_path")
        config: GCSConfig = {}
        if key:
            text = key if isinstance(key, str) else json.dumps(key)
            config["service_account_key"] = text
        elif path:
            config["service_account"] = str(path)
        # A key may name an endpoint of its own, as a private one or an emulator does.
        plain = "http://" in str(config.get("service_account_key", ""))
        return GCSStore(
            self.bucket,
            config=config,
            client_options={**CLIENT, "allow_http": plain},
            retry_config=RETRIES,
        )

    # obstore signs a name as it is, where Google wants what the URL has: a '#' would
    # end the name, and a '%' be taken for a quoted character.

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        """Return a URL to PUT an object to."""
        return SignedPut(self._sign("PUT", quote(key), seconds))

    def sign_get(self, key: str, seconds: int) -> str:
        """Return a URL to GET an object from."""
        return self._sign("GET", quote(key), seconds)

    def key_of(self, url: str) -> str | None:
        """Return the name that a URL means in this bucket."""
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
        except ValueError as error:
            raise BadDelivery(f"result_url is not a URL: {error}") from error
        path = unquote(parts.path.lstrip("/"))
        if parts.scheme == "gs":
            return (path or None) if parts.netloc == self.bucket else None
        if parts.scheme != "https":
            return None
        if host == f"{self.bucket}.{HOST}":
            return path or None
        first, _, key = path.partition("/")
        if host in (HOST, "storage.cloud.google.com") and first == self.bucket:
            return key or None
        return None
