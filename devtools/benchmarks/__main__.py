# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make bench``: the benchmarks, one by one, each with its table (``ONLY=`` one)."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("devtools.benchmarks.webhook_latency", "--airflow"),
    ("devtools.benchmarks.waiting",),
    ("devtools.benchmarks.object_stores",),
    ("devtools.benchmarks.sinks",),
    ("devtools.benchmarks.hostile",),
    ("devtools.benchmarks.defer_after",),
    ("devtools.benchmarks.delivered_to_done",),
    ("devtools.benchmarks.settle_seconds",),
    ("devtools.benchmarks.triggerer_stop",),
)


def main(only: str | None = None) -> int:
    """Run them, or the one of that name; the first that fails ends it."""
    wanted = [
        one
        for one in BENCHMARKS
        if only is None or one[0] == f"devtools.benchmarks.{only}"
    ]
    if not wanted:
        known = ", ".join(module.rpartition(".")[2] for module, *_ in BENCHMARKS)
        print(
            f"{only!r} is not a benchmark; the benchmarks are: {known}", file=sys.stderr
        )
        return 2
    for module, *arguments in wanted:
        done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
