"""Counts what a reader of the package meets and what one item goes through, and prints the tables of this README.

    python benchmarks/structure/bench.py [--check] [--readme] [--json FILE] [--list FIGURE]

Nothing is timed, so the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from source import Source
from traced import BATCH, JOURNEYS, PACKAGE, Piece, traced

from invoicing_async import VERSION

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Limit(NamedTuple):
    """`--check` fails above `most`, which may only be lowered; `aim` is where it is to come to."""

    most: float
    aim: float | None = None


SOURCE = {
    "private functions, %": Limit(28.6),
    "private, name used once, %": Limit(6, 6),
    "private, itself used once, %": Limit(15.7),
    "lines of a function, median": Limit(9),
    "lines of a function, p90": Limit(25, 25),
    "lines of a function, most": Limit(45),
    "modules over 400 lines": Limit(0),
    "classes over 200 lines": Limit(0),
    'docstrings that begin "Give"': Limit(0),
}
CALLS = {
    "an order id to a file": Limit(90, 89),
    "a draft to its request id, durable": Limit(99),
    "a poll, not done yet": Limit(51),
    "a status polled and recorded, durable": Limit(120),
}
BEFORE = {
    "private functions, %": "46",
    "private, name used once, %": "17",
    "lines of a function, median": "5",
    "lines of a function, p90": "13",
    "lines of a function, most": "38",
    'docstrings that begin "Give"': "147",
    "an order id to a file": "134, 118, 52",
    "a draft to its request id, durable": "192",
    "a status polled and recorded, durable": "some 100",
}
"""What was counted when the limits were set, by another script: calls, functions and changes of module of a journey."""


def header() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "attrs", "cattrs", "tenacity"))
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    return f"invoicing_async {VERSION}; {machine}; {packages}. Batches of {BATCH}, the median item."


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}".removesuffix(".0")


def source_table(figures: dict[str, float]) -> list[str]:
    lines = ["| in the source | now | at most | aim | before |", "|---|--:|--:|--:|--:|"]
    for name, value in figures.items():
        limit = SOURCE.get(name)
        most, aim = (number(limit.most), number(limit.aim)) if limit else ("", "")
        lines.append(f"| {name} | {number(value)} | {most} | {aim} | {BEFORE.get(name, '')} |")
    return lines


def journey_table(pieces: dict[str, Piece]) -> list[str]:
    lines = [
        "| one item | calls | functions | changes of module | in other threads | calls at most | aim | before |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, piece in pieces.items():
        limit, counted = CALLS[name], " | ".join(map(number, piece))
        lines.append(f"| {name} | {counted} | {number(limit.most)} | {number(limit.aim)} | {BEFORE.get(name, '')} |")
    return lines


def exceeded(figures: dict[str, float], pieces: dict[str, Piece]) -> list[str]:
    """Every limit that is broken, in words."""
    counted = {name: piece.calls for name, piece in pieces.items()}
    return [
        f"{name}: {number(value)}, at most {number(limit.most)}"
        for limits, values in ((SOURCE, figures), (CALLS, counted))
        for name, limit in limits.items()
        if (value := values[name]) > limit.most
    ]


def parsed(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is exceeded")
    parser.add_argument("--readme", action="store_true", help="put the figures into the README beside this file")
    parser.add_argument("--json", type=Path, help="keep every figure, the calls by module too")
    parser.add_argument("--list", choices=names, help="print what stands behind a figure, and nothing else")
    return parser.parse_args()


def into_readme(lines: list[str]) -> None:
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text("\n".join([head + BEGIN, *lines, END + rest.split(END)[1]]))


def main() -> int:
    source = Source(Path(PACKAGE))
    lists = source.lists()
    options = parsed(sorted(lists))
    if options.list:
        print("\n".join(lists[options.list]))
        return 0
    figures = source.figures()
    gc.freeze()  # a collection that goes through every syntax tree takes so long that polls are late, and counted so
    traces = {name: traced(journey) for name, journey in JOURNEYS.items()}
    pieces = {name: piece for name, (piece, _) in traces.items()}
    broken = exceeded(figures, pieces)
    lines = [header(), "", *source_table(figures), "", *journey_table(pieces)]
    print("\n".join([*lines, *(f"EXCEEDED: {one}" for one in broken)]))
    if options.json:
        journeys = {name: {**piece._asdict(), "modules": modules} for name, (piece, modules) in traces.items()}
        options.json.write_text(json.dumps({"header": header(), "source": figures, "journeys": journeys}, indent=2))
    if options.readme:
        into_readme(lines)
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
