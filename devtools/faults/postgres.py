# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL for Airflow: Debian's, on a free port, in a folder of its own."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.airflow import AirflowError
from devtools.servers.postgres import running_postgres as running_postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server, and yield its URL for SQLAlchemy.

    Raises:
        AirflowError: PostgreSQL is not installed.
    """
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and shutil.which("initdb") is None:
        raise AirflowError(
            "The faults need PostgreSQL for Airflow: apt-get install postgresql"
        )
    with running_postgres_server() as server:
        yield server.url.replace("postgresql://", "postgresql+psycopg2://")
