# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin with fixtures for tests of DAGs: a sandbox and its connections.

pytest loads this module in every run if the package is installed. It therefore
imports the sandbox only in the fixtures, and changes nothing until one is requested.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runqy_sandbox.sandbox import Sandbox


@pytest.fixture(scope="session")
def runqy_queues() -> dict[str, Any]:
    """The queues of ``runqy_sandbox``, in the format of runqy's YAML files.

    Override this session fixture to serve your own queues; it may also return the path
    of a YAML file. The default is one queue, ``echo``, which returns its payload.
    """
    from runqy_sandbox.echo import ECHO_QUEUES  # noqa: PLC0415 - see the module

    return ECHO_QUEUES


@pytest.fixture(scope="session")
def runqy_sandbox(
    runqy_queues: Mapping[str, Any] | Path | str,
) -> Iterator[Sandbox]:
    """A sandbox that serves ``runqy_queues``, shared by all tests of the session.

    The first retry of a failed job comes after a tenth of a second.
    """
    from runqy_sandbox.sandbox import Sandbox  # noqa: PLC0415 - see the module

    with Sandbox(runqy_queues, retry_unit=0.1) as sandbox:
        yield sandbox


@pytest.fixture
def runqy_connections(
    runqy_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """Airflow connections to ``runqy_sandbox``, set as environment variables.

    The connections are ``runqy_default``, ``redis_default`` and ``aws_default``; the
    fixture returns them by these ids. Results go to ``s3://results`` by default.
    """
    connections = runqy_sandbox.connections(sink="s3://results")
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    return connections
