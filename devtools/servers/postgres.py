"""A real PostgreSQL on a free port, with nothing in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from devtools.servers.installed import as_user, require
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "runqy", "not-a-secret"


@dataclass
class Postgres:
    """A running server; ``child`` stops and starts it."""

    port: int
    child: Child
    database: str = "postgres"

    @property
    def url(self) -> str:
        """Address of the database."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{self.database}"

    @property
    def airflow_url(self) -> str:
        """The same for Airflow's own database, which it opens with psycopg2."""
        return self.url.replace("postgresql://", "postgresql+psycopg2://")

    def connect(self) -> psycopg.Connection:
        """Return a connection that commits by itself."""
        return psycopg.connect(self.url, autocommit=True, client_encoding="utf8")

    def with_database(self, encoding: str) -> Postgres:
        """Return the server with another database, which has an encoding."""
        name = encoding.lower()
        with self.connect() as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [name]).fetchone() is None:
                connection.execute(
                    f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' "
                    "TEMPLATE template0"
                )
        return replace(self, database=name)


def find_program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; None if it is not found."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else shutil.which(name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server, and remove all of it at the end."""
    initdb = require(find_program("initdb"), "postgresql")
    server = require(find_program("postgres"), "postgresql")
    # Not below pytest's own folder: the server's user may not enter that.
    home = Path(tempfile.mkdtemp(prefix="runqy-postgres-"))
    prefix = as_user("postgres")
    if prefix:
        shutil.chown(home, "postgres", "postgres")
    data, password = home / "data", home / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    options = ["--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "-EUTF8"]
    subprocess.run(
        [*prefix, initdb, "-D", str(data), "-U", USER, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    port = free_port()
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"

    def answers(_pid: int) -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    command = [*prefix, server, "-D", str(data), "-p", str(port), "-k", str(home)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    watchdog = Watchdog()
    child = Child(Program("PostgreSQL", command, answers), home / "log", watchdog)
    try:
        child.start()
        yield Postgres(port, child)
    finally:
        child.stop()
        watchdog.close()
        shutil.rmtree(home, ignore_errors=True)
