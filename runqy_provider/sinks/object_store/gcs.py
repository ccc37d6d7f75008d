# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The sink ``gs://bucket/prefix``: Google Cloud Storage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from obstore.store import GCSStore

from runqy_provider.connections import extra_of
from runqy_provider.sinks.object_store._obstore import (
    ObstoreStore,
    refuse_fields,
)
from runqy_provider.sinks.object_store.base import SignedPut
from runqy_provider.sinks.object_store.object_sink import ObjectSink
from runqy_provider.sinks.object_store.uri import key_of_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import GCSConfig

    from runqy_provider.connections import ConnectionLike
    from runqy_provider.settings import Settings


HOST = "storage.googleapis.com"

#: Where people download objects with a browser.
BROWSER_HOST = "storage.cloud.google.com"

#: Fields of a Google Cloud connection that sinks do not support.
_UNSUPPORTED = (
    "impersonation_chain",
    "key_secret_name",
    "credential_config_file",
    "idp_issuer_url",
)


@dataclass(frozen=True)
class GcsSink(ObjectSink):
    """Results in Google Cloud Storage.

    Args:
        bucket: Name of the bucket.
        prefix: What keys begin with; a job's key is ``prefix/delivery_id``.
        presign: Give workers a signed PUT URL, so that they need no credentials.
        gcp_conn_id: The Google Cloud connection.
    """

    scheme: ClassVar[str] = "gs"
    bucket_kind: ClassVar[str] = "a bucket of Google Cloud Storage"
    bucket_names: ClassVar[str] = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
    conn_option: ClassVar[str | None] = "gcp_conn_id"

    gcp_conn_id: str | None = None

    def store(self, settings: Settings) -> GoogleStore:  # noqa: ARG002 - not in the runqy connection
        return GoogleStore(self.bucket, self.gcp_conn_id or "google_cloud_default")


@dataclass(frozen=True)
class GoogleStore(ObstoreStore):
    """A bucket in Google Cloud Storage."""

    scheme: ClassVar[str] = "gs"
    service: ClassVar[str] = "Google Cloud"
    client_class: ClassVar[Callable[..., Any]] = GCSStore

    def read_config(self, connection: ConnectionLike) -> tuple[GCSConfig, bool]:
        """Return the connection's key; without one, the machine's credentials count."""
        extra = extra_of(connection)
        unsupported = [name for name in _UNSUPPORTED if extra.get(name)]
        refuse_fields(
            connection,
            unsupported,
            "keyfile_dict, key_path, Google's application default credentials",
        )
        key, path = extra.get("keyfile_dict"), extra.get("key_path")
        config: GCSConfig = {}
        if key:
            text = key if isinstance(key, str) else json.dumps(key)
            config["service_account_key"] = text
        elif path:
            config["service_account"] = str(path)
        # A key may name an endpoint: a private one, or that of an emulator.
        is_plain = "http://" in str(config.get("service_account_key", ""))
        return config, is_plain

    # Keys are quoted before they are signed: obstore signs the text that it is given,
    # and Google checks the text in the URL.

    def sign_put(self, key: str, seconds: int) -> SignedPut:
        return SignedPut(self._sign("PUT", quote(key), seconds))

    def sign_get(self, key: str, seconds: int) -> str:
        return self._sign("GET", quote(key), seconds)

    def key_of(self, url: str) -> str | None:
        roots = {
            f"gs://{self.bucket}": "",
            f"https://{self.bucket}.{HOST}": "",
            f"https://{HOST}": f"{self.bucket}/",
            f"https://{BROWSER_HOST}": f"{self.bucket}/",
        }
        return key_of_url(url, roots)
