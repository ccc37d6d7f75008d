# SPDX-FileCopyrightText: The runqy for Airflow authors
# SPDX-License-Identifier: Apache-2.0
"""Plots of what was measured: memory and processor of waits, latency of a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.benchmarks.results import FOLDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devtools.benchmarks.results import Result
    from devtools.benchmarks.table import Table

#: Where the plots of a full run go: pages of the documentation show them.
IMAGES = ROOT / "docs" / "images"

SIZE, DOTS_PER_INCH = (7.2, 4.6), 110

#: What the name of a second line of one way ends with.
SECOND = ", p99"

#: A figure of 0 has no place on a logarithmic axis.
LEAST = 0.01


def draw(results: Mapping[str, Result], *, quick: bool) -> list[Path]:
    """Draw what was measured, and return the paths of the pictures."""
    folder = FOLDER if quick else IMAGES
    tables = {t.name: t for result in results.values() for t in result.tables}
    paths = []
    if (waiting := tables.get("waiting")) is not None:
        title = "Memory of a triggerer, per wait"
        series = _series(waiting, "kind", "waits", "KiB per wait")
        paths.append(_plot(folder / "bench-memory.png", title, "waits", "KiB", series))
        title = "Processor time of a triggerer while all waits idle"
        series = _series(waiting, "kind", "waits", "% of a core, idle")
        paths.append(
            _plot(folder / "bench-cpu.png", title, "waits", "% of a core", series)
        )
    if (latency := tables.get("webhook_latency")) is not None:
        title = "From a webhook's POST to the trigger's event: median and p99"
        series = {}
        for column in ("p50 ms", "p99 ms"):
            found = _series(latency, "way", "other waits", column)
            end = SECOND if column.startswith("p99") else ""
            series |= {f"{way}{end}": each for way, each in found.items()}
        path = folder / "bench-latency.png"
        paths.append(_plot(path, title, "other waits", "ms", series))
    return paths


def _series(
    table: Table, name: str, across: str, column: str
) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in table.records():
        point = (row[across], max(LEAST, row[column]))
        lines.setdefault(row[name], []).append(point)
    return lines


def _plot(
    path: Path,
    title: str,
    across: str,
    up: str,
    lines: Mapping[str, list[tuple[float, float]]],
) -> Path:
    """Draw lines on logarithmic axes: solid is ours, dashed the peer, dotted bare.

    Two lines of one way have one colour.
    """
    # An object of its own, without pyplot: no window, no state that is shared.
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy, and only here

    figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH, layout="constrained")
    axes: Any = figure.subplots()
    ways = list(dict.fromkeys(name.removesuffix(SECOND) for name in lines))
    for name, points in lines.items():
        style = {"peer": "--", "bare": ":"}.get(name.partition(":")[0], "-")
        axes.plot(
            *zip(*points, strict=True),
            linestyle=style,
            marker="^" if name.endswith(SECOND) else "o",
            color=f"C{ways.index(name.removesuffix(SECOND))}",
            label=name,
        )
    axes.set(title=title, xlabel=across, ylabel=up, xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")
    axes.grid(visible=True, which="major", alpha=0.4)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    path.parent.mkdir(exist_ok=True)
    # Without the version of matplotlib, which would change the file for nothing.
    figure.savefig(path, metadata={"Software": None})
    return path
