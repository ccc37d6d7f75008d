"""A real MariaDB on a free port, with one empty database."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql

from devtools.servers.installed import as_user, require
from runqy_sandbox.process.child import Child, Program
from runqy_sandbox.process.net import free_port
from runqy_sandbox.process.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD, DATABASE = "runqy", "not-a-secret", "results"

#: Statements that make the user and the database, before the server accepts
#: connections.
SETUP = f"""\
CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;
CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION;
"""


@dataclass
class MariaDB:
    """A running server; ``child`` stops and starts it."""

    port: int
    child: Child

    @property
    def url(self) -> str:
        """Address of its one database, for task code."""
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def airflow_url(self) -> str:
        """The same as an Airflow connection, which names its driver."""
        return f"{self.url}?client=pymysql"

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement, commit, and return its rows."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def connect(self) -> pymysql.Connection[Any]:
        """Return a connection that commits by itself."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=DATABASE,
            autocommit=True,
            connect_timeout=2,
        )


@contextmanager
def running_mariadb() -> Iterator[MariaDB]:
    """Start a server, and remove all of it at the end."""
    path = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    install = require(shutil.which("mariadb-install-db", path=path), "mariadb-server")
    server = require(shutil.which("mariadbd", path=path), "mariadb-server")
    # Not below pytest's own folder: the server's user may not enter that.
    home = Path(tempfile.mkdtemp(prefix="runqy-mariadb-"))
    prefix = as_user("mysql")
    if prefix:
        shutil.chown(home, "mysql", "mysql")
    data, setup = home / "data", home / "setup.sql"
    setup.write_text(SETUP)
    options = ["--no-defaults", f"--datadir={data}", f"--tmpdir={home}"]
    options += ["--skip-test-db", "--auth-root-authentication-method=normal"]
    subprocess.run(
        [*prefix, install, *options],
        check=True,
        capture_output=True,
        cwd="/",
    )
    port = free_port()

    def answers(_pid: int) -> bool:
        try:
            MariaDB(port, child).connect().close()
        except pymysql.OperationalError:
            return False
        return True

    command = [*prefix, server, "--no-defaults", f"--datadir={data}"]
    command += [f"--socket={home / 'socket'}", f"--pid-file={home / 'pid'}"]
    command += ["--bind-address=127.0.0.1", f"--port={port}", f"--tmpdir={home}"]
    # The file is executed at each start: it is emptied once the server answers.
    command += [f"--init-file={setup}", "--innodb-flush-log-at-trx-commit=0"]
    # Tests must not depend on a server in UTC, or on its strict mode.
    command += ["--default-time-zone=+05:00", "--sql-mode="]
    watchdog = Watchdog()
    child = Child(Program("MariaDB", command, answers), home / "log", watchdog)
    try:
        child.start()
        setup.write_text("")
        yield MariaDB(port, child)
    finally:
        child.stop()
        watchdog.close()
        shutil.rmtree(home, ignore_errors=True)
