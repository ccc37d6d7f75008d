"""Object stores of all kinds, and task code that writes to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from devtools.servers.azurite import Azurite, running_azurite
from devtools.servers.google_storage import GoogleStorage, running_google_storage
from tests.support.caches import clear_clients
from tests.support.stack import Stack, example_code, make_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Kind:
    """A kind of store: the sink's scheme, its URI without a prefix, and its server."""

    scheme: str
    uri: str
    server: GoogleStorage | Azurite | None


@pytest.fixture(scope="package")
def google() -> Iterator[GoogleStorage]:
    with running_google_storage() as google:
        google.create_bucket("results")
        yield google


@pytest.fixture(scope="package")
def azurite() -> Iterator[Azurite]:
    with running_azurite() as azurite:
        azurite.create_container("results")
        yield azurite


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared folder with the folders of the tests: the sink creates none."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("values", "without_webhook", "large", "linked", "hundred", "many"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="package")
def stack(
    google: GoogleStorage,
    azurite: Azurite,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    environment = {
        "STORAGE_EMULATOR_HOST": google.url,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "RESULTS_FOLDER": str(folder),
        "RUNQY_DELIVERY_RETRY_FOR": "5",
        # The worker's own credentials, used without a signed URL.
        "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": azurite.url.rpartition("/")[0],
        "AZURE_ALLOW_HTTP": "true",
    }
    code = tmp_path_factory.mktemp("task_code")
    more = example_code("guide_gs", "guide_abfs", "guide_file", "render")
    with make_stack(code, environment, more) as stack:
        yield stack


@pytest.fixture(autouse=True)
def connections(
    google: GoogleStorage, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Airflow's connections to those stores, under their default ids."""
    extra = {"keyfile_dict": json.dumps(google.key)}
    connection = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps(connection))
    extra = {"connection_string": azurite.connection_string}
    connection = {"conn_type": "wasb", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", json.dumps(connection))
    yield
    clear_clients()


@pytest.fixture(params=["s3", "gs", "abfs", "file"])
def kind(
    request: pytest.FixtureRequest,
    google: GoogleStorage,
    azurite: Azurite,
    folder: Path,
) -> Kind:
    return {
        "s3": Kind("s3", "s3://results", None),
        "gs": Kind("gs", "gs://results", google),
        "abfs": Kind("abfs", "abfs://results", azurite),
        "file": Kind("file", f"file://{folder}", None),
    }[request.param]
