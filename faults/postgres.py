# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL for Airflow: Debian's, on a free port, in a folder of its own."""

from __future__ import annotations

import importlib
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from demo.airflow import AirflowError
from faults.places import SERVERS

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
    sys.path.insert(0, str(SERVERS))
    postgres = importlib.import_module("postgres")
    with postgres.running_postgres() as server:
        yield server.url.replace("postgresql://", "postgresql+psycopg2://")
