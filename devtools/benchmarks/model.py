# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""The size of a deployment for a load: ``python -m devtools.benchmarks.model``.

Each field of ``sizing.Load`` is an option. What is printed is computed from the figures
in ``measured``; ``--sources`` says which benchmark measured each.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from devtools.benchmarks.measured import FIGURES
from devtools.benchmarks.sizing import LISTING_INTERVAL, Load, Size, size_of

#: Units of bytes, from the largest.
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__)
    for each in fields(Load):
        option = f"--{each.name.replace('_', '-')}"
        text = f"{each.metadata['help']} (default: %(default)s)"
        made.add_argument(option, type=float, default=each.default, help=text)
    made.add_argument("--sources", action="store_true", help="list all figures")
    return made


def text_of(load: Load, size: Size) -> str:
    """Return the sizing of a load as lines."""
    rows = {
        "load at the peak": f"{size.jobs_per_second:.1f} jobs/s, "
        f"{size.deliveries_per_second:.1f} deliveries/s, {size.waits:,} waits at once",
        "worker slots": f"{size.slots:,} (LocalExecutor, or all Celery workers), "
        f"{size.slot_cores} cores",
        "triggerers": f"{size.triggerers}, each with "
        f"{_bytes(size.triggerer_memory)} and {size.triggerer_cpu:.0%} of a core; "
        "one may fail",
        "receivers": f"{size.receivers}; one may fail",
        "Redis": f"{_bytes(size.redis_memory)} of memory, "
        f"{size.redis_cpu:.0%} of a core",
        "append-only file": f"{_bytes(size.redis_appended_per_second)}/s at the peak, "
        f"{_bytes(size.redis_appended_per_day)} a day",
        "object store, a day": f"{size.puts:,.0f} PUT, {size.reads:,.0f} GET or HEAD, "
        f"{size.lists:,.0f} LIST",
        "object store, a month": f"${size.dollars_per_month:,.2f} for requests",
        "enqueue": f"{size.jobs_per_second:.1f} jobs/s: {size.http_clients:.1%} of "
        f"what one HTTP client can, {size.redis_clients:.1%} by Redis",
    }
    width = max(map(len, rows))
    assumed = ", ".join(
        f"{each.name} {getattr(load, each.name):,g}"
        for each in fields(Load)
        if getattr(load, each.name) != each.default
    )
    head = [f"changed: {assumed}"] if assumed else []
    return "\n".join([*head, *(f"{k:{width}}  {v}" for k, v in rows.items())])


def main(arguments: list[str] | None = None) -> None:
    """Print the sizing that the command line asks for."""
    options = vars(parser().parse_args(arguments))
    wants_sources = options.pop("sources")
    load = Load(**options)
    print(text_of(load, size_of(load)))
    if wants_sources:
        print(f"\nAn object store is listed every {LISTING_INTERVAL:g} s. Measured:")
        for each in FIGURES:
            print(f"{each.value:,g} {each.unit}: {each.benchmark}, {each.where}")


def _bytes(count: float) -> str:
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


if __name__ == "__main__":
    main()
