# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""``make bench``: all benchmarks, one by one, each with its table (20 minutes)."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("benchmarks.webhook_latency", "--airflow"),
    ("benchmarks.waiting",),
    ("benchmarks.object_stores",),
    ("benchmarks.sinks",),
    ("benchmarks.hostile",),
    ("benchmarks.defer_after",),
)


def main() -> int:
    """Run them; the first that fails ends it."""
    for module, *arguments in BENCHMARKS:
        done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
