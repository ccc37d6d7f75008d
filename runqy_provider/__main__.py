# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m runqy_provider check CONN_ID``: what Airflow's Test button shows."""

from __future__ import annotations

import argparse
import os
import sys

from runqy_provider.airflow_compat import PROCESS_CONTEXT
from runqy_provider.checks import is_usable, report
from runqy_provider.checks.connection import check_connection
from runqy_provider.connections import DEFAULT_CONN_ID


def main(arguments: list[str] | None = None) -> int:
    """Check a connection, and print one line per check.

    Returns:
        0 if tasks can run with it, 1 if they cannot.
    """
    parser = argparse.ArgumentParser(prog="python -m runqy_provider")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", help="check all that tasks need of a runqy connection"
    )
    check.add_argument(
        "conn_id", nargs="?", default=DEFAULT_CONN_ID, help="id of the connection"
    )
    options = parser.parse_args(arguments)
    # As Airflow's own commands do, so that connections in its database are found.
    os.environ[PROCESS_CONTEXT] = "server"
    results = check_connection(options.conn_id)
    print(report(results))  # noqa: T201 - it is a command
    return 0 if is_usable(results) else 1


if __name__ == "__main__":
    sys.exit(main())
