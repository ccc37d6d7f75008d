# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""pytest fixtures for tests of DAGs: a sandbox, and Airflow's connections to it.

The package registers this module as a pytest plugin: a test only names the fixtures.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runqy_sandbox.sandbox import Sandbox


@pytest.fixture(scope="session")
def runqy_queues() -> dict[str, Any]:
    """The queues of the sandbox, as runqy's YAML files have them; override it.

    By default there is one queue, ``echo``, which returns its payload.
    """
    from runqy_sandbox.__main__ import ECHO  # noqa: PLC0415 - most test runs use none of this

    return {"queues": {"echo": ECHO}}


@pytest.fixture(scope="session")
def runqy_sandbox(runqy_queues: dict[str, Any]) -> Iterator[Sandbox]:
    """A sandbox that serves ``runqy_queues``, one for the whole test run.

    A job that fails is tried again after a tenth of a second.
    """
    from runqy_sandbox.sandbox import Sandbox  # noqa: PLC0415 - most test runs use none of this

    with Sandbox(runqy_queues, retry_unit=0.1) as sandbox:
        yield sandbox


@pytest.fixture
def runqy_connections(
    runqy_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """Airflow's connections to the sandbox, set as environment variables.

    Results go to ``s3://results``. Returns the connections by their ids.
    """
    connections = runqy_sandbox.connections(sink="s3://results")
    for name, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    return connections
