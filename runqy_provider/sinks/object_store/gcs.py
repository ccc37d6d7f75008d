# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``gs://bucket/prefix``: Google Cloud Storage."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, unquote, urlsplit

from obstore.store import GCSStore

from runqy_provider.connections import extra_of
from runqy_provider.errors import BadDelivery, Misconfigured
from runqy_provider.sinks.object_store._obstore import (
    CLIENT,
    RETRIES,
    ObstoreStore,
    refuse_fields,
)
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.object_store.sink import ObjectSink

if TYPE_CHECKING:
    from obstore.store import GCSConfig

    from runqy_provider.connections import ConnectionLike
    from runqy_provider.context import Access

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True)
class GcsSink(ObjectSink):
    """Results in Google Cloud Storage.

    Args:
        bucket: Name of the bucket.
        prefix: What names begin with; a job's is ``prefix/delivery_id``.
        presign: Give workers a signed PUT URL, so that they need no credentials.
        gcp_conn_id: The Google Cloud connection.
    """

    scheme: ClassVar[str] = "gs"
    conn_option: ClassVar[str | None] = "gcp_conn_id"

    gcp_conn_id: str | None = None

    def store(self, access: Access) -> GoogleStore:  # noqa: ARG002 - has a connection of its own
        """Return the bucket."""
        return GoogleStore(self.bucket, self.gcp_conn_id or "google_cloud_default")

    def _check_bucket(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise Misconfigured(
                f"{self.bucket!r} is no name for a bucket of Google Cloud Storage. A "
                "sink there is written gs://bucket/prefix."
            )


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
