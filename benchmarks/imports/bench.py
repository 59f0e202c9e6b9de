"""Measures what an import costs, each in fresh processes, and prints the table of this README.

    python benchmarks/imports/bench.py [--check] [--readme] [--rounds N] [--json FILE]

The processes take turns, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from invoicing_async import VERSION

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PACKAGES = ("aiohttp", "attrs", "cattrs", "tenacity")
PEER = f"""
import asyncio, {", ".join(PACKAGES)}
async def opened():
    async with aiohttp.ClientSession("http://127.0.0.1:9"): pass
asyncio.run(opened())
"""
OURS = """
import asyncio
from invoicing_async import HmacAuth, OrderDocuments, Saved, Session
async def opened():
    async with Session("http://127.0.0.1:9", auth=HmacAuth(partner_client_id="p", secret_key="s")) as session:
        OrderDocuments(session)
asyncio.run(opened())
"""


class Case(NamedTuple):
    """What is run, and how many times what another case takes it may take."""

    code: str
    than: str = ""
    most: float = 0


FOUR = f"`import {', '.join(PACKAGES)}`"
OPEN = "the four, with an `aiohttp.ClientSession` opened"
CASES = {
    FOUR: Case(FOUR.strip("`")),
    "`import invoicing_async`": Case("import invoicing_async", FOUR, 1.15),
    "`from invoicing_async import *`": Case("from invoicing_async import *", FOUR, 1.15),
    OPEN: Case(PEER),
    "the README's first example, with its `Session` opened": Case(OURS, OPEN, 1.6),
}
"""A limit may only be lowered."""

TIMED = """
from time import perf_counter, process_time
wall, cpu = perf_counter(), process_time()
{code}
print(perf_counter() - wall, process_time() - cpu)
"""


class Times(NamedTuple):
    """Milliseconds, of one import or the medians of many."""

    wall: float
    cpu: float


def measured(case: Case) -> Times:
    """Run it once in a process of its own; bytecode is written where there is none, as after an installation."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = TIMED.format(code=case.code)
    told = subprocess.run([sys.executable, "-c", code], env=kept, cwd=ROOT, check=True, capture_output=True, text=True)
    wall, cpu = map(float, told.stdout.split())
    return Times(wall * 1000, cpu * 1000)


def medians(rounds: int) -> dict[str, Times]:
    """One round goes before the ones that count: it compiles, and brings the files into memory."""
    _, *taken = [{name: measured(case) for name, case in CASES.items()} for _ in range(rounds + 1)]
    return {
        name: Times(median(each[name].wall for each in taken), median(each[name].cpu for each in taken))
        for name in CASES
    }


def ratio(name: str, times: dict[str, Times]) -> float:
    return times[name].cpu / times[CASES[name].than].cpu


def table(times: dict[str, Times]) -> list[str]:
    lines = ["| in a fresh process | wall, ms | CPU, ms | CPU, ratio | at most |", "|---|--:|--:|--:|--:|"]
    for name, case in CASES.items():
        compared = f"{ratio(name, times):.2f} | {case.most}" if case.than else " | "
        lines.append(f"| {name} | {times[name].wall:.0f} | {times[name].cpu:.0f} | {compared} |")
    return lines


def exceeded(times: dict[str, Times]) -> list[str]:
    """Every limit that is broken, in words."""
    return [
        f"{name}: {ratio(name, times):.2f} times {case.than}, at most {case.most}"
        for name, case in CASES.items()
        if case.than and ratio(name, times) > case.most
    ]


def header(rounds: int) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    return f"invoicing_async {VERSION}; {machine}; {packages}. Medians of {rounds} processes each."


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is exceeded")
    parser.add_argument("--readme", action="store_true", help="put the figures into the README beside this file")
    parser.add_argument("--rounds", type=int, default=25, help="how many processes of each kind")
    parser.add_argument("--json", type=Path, help="keep the figures")
    return parser.parse_args()


def into_readme(lines: list[str]) -> None:
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text("\n".join([head + BEGIN, *lines, END + rest.split(END)[1]]))


def main() -> int:
    options = parsed()
    times = medians(options.rounds)
    broken = exceeded(times)
    lines = [header(options.rounds), "", *table(times)]
    print("\n".join([*lines, *(f"EXCEEDED: {one}" for one in broken)]))
    if options.json:
        figures = {name: each._asdict() for name, each in times.items()}
        options.json.write_text(json.dumps({"header": header(options.rounds), "times": figures}, indent=2))
    if options.readme:
        into_readme(lines)
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
