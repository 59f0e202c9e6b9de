"""Measures what a durable journal costs a submission and prints the table of this folder's README.

Every client runs in its own process, in turn and in an order that rotates, against a fresh service process; the
service's count and the records on disk are compared before its figures count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
REQUIRED = 0.90
LABELS = {
    "none": "no journal (`submit_many`)",
    "run": "**ours: `InvoiceRun`**",
    "sqlite": "sqlite3 on the loop, a commit a row",
    "aiosqlite": "aiosqlite, a commit a row",
    "jsonl": "JSONL, an fsync a line",
    "none-uvloop": "no journal, uvloop",
    "run-uvloop": "**ours, uvloop**",
}


@dataclass(frozen=True)
class Result:
    """One run of one client."""

    client: str
    rate: float
    cpu: float
    """Microseconds a submission, of the whole process."""
    taking: float
    """Microseconds a draft, before the submission."""


@contextmanager
def service(latency: float, expected: int) -> Iterator[str]:
    """Run a fresh service; at the end it must have taken exactly what was expected."""
    command = [sys.executable, str(HERE / "service.py"), "--latency", str(latency)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        yield f"http://127.0.0.1:{json.loads(started.stdout.readline())['port']}"
        started.send_signal(signal.SIGTERM)
        taken = json.loads(started.stdout.readline())["submissions"]
        if taken != expected:
            raise RuntimeError(f"the service took {taken} submissions, not {expected}")
    finally:
        started.kill()
        started.communicate()


def measured(client: str, options: argparse.Namespace) -> Result:
    count, wide = options.drafts, options.concurrency
    with (
        tempfile.TemporaryDirectory(dir=options.disk) as folder,
        service(options.latency, count + wide) as url,
    ):
        command = [sys.executable, str(HERE / "clients.py"), client, url, str(count), str(wide), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
    if found["records"] != count:
        raise RuntimeError(f"{client} left {found['records']} records of {count}")
    return Result(client, count / found["seconds"], found["cpu"] / count * 1e6, found["taking"] / count * 1e6)


def rounds(options: argparse.Namespace) -> list[list[Result]]:
    """Each round has every client once, and each round begins with another."""
    clients = [name for name in LABELS if name in options.client]
    found = []
    for number in range(options.rounds):
        turn = number % len(clients)
        found.append([measured(name, options) for name in clients[turn:] + clients[:turn]])
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found


def base(client: str) -> str:
    return "none-uvloop" if client.endswith("-uvloop") else "none"


def ratio(found: list[list[Result]], client: str) -> float:
    """The median over the rounds of the rate, as a share of the rate without a journal in the same round."""
    shares = []
    for results in found:
        rate = {result.client: result.rate for result in results}
        shares.append(rate[client] / rate[base(client)])
    return median(shares)


def table(found: list[list[Result]]) -> list[str]:
    lines = [
        "| journal | submissions a second | of no journal | CPU us | taking in, us a draft |",
        "|---|--:|--:|--:|--:|",
    ]
    for client, label in LABELS.items():
        own = [result for results in found for result in results if result.client == client]
        if own:
            rate, cpu = median(result.rate for result in own), median(result.cpu for result in own)
            taking = median(result.taking for result in own)
            shown = f"{taking:.0f}" if taking else ""
            lines.append(f"| {label} | {rate:,.0f} | {ratio(found, client):.2f} | {cpu:.0f} | {shown} |")
    return lines


def header(options: argparse.Namespace) -> list[str]:
    peers = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "aiosqlite", "uvloop") if has(name))
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {peers}. {options.drafts:,} drafts a run, concurrency "
        f"{options.concurrency}, {options.latency * 1e3:g} ms of latency, {options.rounds} rounds, medians."
    )
    return [machine, ""]


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drafts", type=int, default=6_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--disk", default=str(HERE), help="a folder on a real disk")
    parser.add_argument("--client", action="append", choices=LABELS, help="only these, and what they are compared with")
    parser.add_argument("--check", action="store_true", help="exit 1 if the required figure is missed")
    parser.add_argument("--readme", action="store_true", help="put the figures into the README beside this file")
    options = parser.parse_args()
    chosen = set(options.client or LABELS)
    missing = {name for name in ("aiosqlite", "uvloop") if not has(name)}
    chosen = {name for name in chosen if not any(name.endswith(package) for package in missing)}
    options.client = chosen | {base(name) for name in chosen}
    return options


def into_readme(lines: list[str]) -> None:
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text("\n".join([head + BEGIN, *lines, END + tail]))


def main() -> int:
    options = parsed()
    found = rounds(options)
    lines = header(options) + table(found)
    reached = True
    if "run" in options.client:
        share = ratio(found, "run")
        reached = share >= REQUIRED
        lines += [
            "",
            f"Required of ours: at least {REQUIRED:.2f}; here {share:.2f}: {'reached' if reached else 'MISSED'}.",
        ]
    print("\n".join(lines))
    if options.readme:
        into_readme(lines)
    return 1 if options.check and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
