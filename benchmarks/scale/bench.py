"""Measures what a run on a PostgreSQL server costs beside one in a file, and prints the tables of this folder's README.

    python benchmarks/scale/bench.py [--quick] [--check] [--readme] [--only SECTION] [--items N] [--soak SECONDS]

Every figure that is held to a bound is a ratio of two that were measured in turn, in this run, on servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import servers
from processes import HERE, counted, service, started, together
from servers import Database, PostgresServer

WRITERS = 64
PLACES = 64
FEW = 4
"""Places of a worker, and writers of a process, where the CPU is to be idle."""
COMMIT = 10
"""Milliseconds that a commit takes where it is far."""
SIX = 6


Figures: TypeAlias = dict[str, float]
Found: TypeAlias = dict[str, list[Figures]]
"""What each kind made of each round."""


@dataclass
class Report:
    """Lines to print, and what is held to a bound."""

    lines: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.lines += ["", f"**{title}**", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
        self.lines += [f"| {' | '.join(map(str, row))} |" for row in rows]

    def hold(
        self, what: str, value: float, *, least: float | None = None, most: float | None = None, unit: str = ""
    ) -> None:
        """Say what is required and what there was."""
        bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
        reached = value >= least if least is not None else most is not None and value <= most
        if not reached:
            self.missed.append(what)
        said = f"{'reached' if reached else 'MISSED'}: {what}: required {bound}{unit}, here {value:.3g}{unit}"
        print(said, file=sys.stderr)
        self.lines += ["", f"{said}."] if not self.lines[-1].startswith(("reached", "MISSED")) else [f"{said}."]


@contextmanager
def folder(options: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=options.disk) as found:
        yield found


def in_turn(kinds: Sequence[str], rounds: int, measured: Callable[[str], Figures]) -> dict[str, list[Figures]]:
    """Measure each kind once a round; each round begins with another."""
    found: Found = {kind: [] for kind in kinds}
    for number in range(rounds):
        turn = number % len(kinds)
        for kind in (*kinds[turn:], *kinds[:turn]):
            found[kind].append(measured(kind))
        shown = ", ".join(f"{kind} {found[kind][-1]['rate']:,.0f}/s" for kind in kinds)
        print(f"round {number + 1} of {rounds}: {shown} (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    return found


def middle(found: Found, kind: str, name: str) -> float:
    return median(one[name] for one in found[kind])


def ratio(found: Found, kind: str, of: str, name: str) -> float:
    """The median over the rounds of the ratio within a round."""
    return median(one[name] / other[name] for one, other in zip(found[kind], found[of], strict=True))


# -- transitions ---------------------------------------------------------------------------------------------------


def transitions(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    database, count = servers.with_queue(server), 1_500 if options.quick else 8_000
    labels = {
        "sqlite": "run file (SQLite)",
        "postgres": "**run on a server**",
        "naive": "psycopg, 10 connections, a commit a row",
    }

    def measured(kind: str) -> Figures:
        with folder(options) as place:
            where = place if kind == "sqlite" else servers.planned_run(database, count)[0]
            used = servers.cpu(server)
            [said] = together([("transitions.py", kind, where, 1, count, WRITERS)])
            used = servers.cpu(server) - used
        number = said["transitions"]
        return {"rate": number / said["seconds"], "cpu": said["cpu"] / number, "server": used / number}

    found = in_turn([*labels], options.rounds, measured)
    rows = [
        (
            label,
            f"{middle(found, kind, 'rate'):,.0f}",
            f"{ratio(found, kind, 'sqlite', 'rate'):.2f}",
            f"{middle(found, kind, 'cpu') * 1e6:.0f}",
            "" if kind == "sqlite" else f"{middle(found, kind, 'server') * 1e6:.0f}",
        )
        for kind, label in labels.items()
    ]
    head = ("ledger", "transitions a second", "of a file", "client CPU us", "database CPU us")
    report.table(f"Durable transitions, {WRITERS} writers, {count * 3:,} a round", head, rows)
    report.hold("transitions a second, of a file", ratio(found, "postgres", "sqlite", "rate"), least=0.5)
    report.hold("client CPU a transition, of a file", ratio(found, "postgres", "sqlite", "cpu"), most=1.15)


def far(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    """Six processes beside one, with commits of 10 ms."""
    database, count = servers.with_queue(server), 200 if options.quick else 600

    def measured(kind: str) -> Figures:
        processes = int(kind)
        where, _ = servers.planned_run(database, count * processes)
        calls = [("transitions.py", "postgres", where, 1 + count * n, count, FEW) for n in range(processes)]
        return {"rate": sum(said["transitions"] / said["seconds"] for said in together(calls))}

    with servers.standby_of(server, COMMIT):
        found = in_turn(["1", str(SIX)], options.rounds, measured)
    share = ratio(found, str(SIX), "1", "rate")
    rows = [
        (kind, f"{middle(found, kind, 'rate'):,.0f}", f"{ratio(found, kind, '1', 'rate') / int(kind):.2f}")
        for kind in found
    ]
    title = f"Commits of {COMMIT} ms, {FEW} writers a process"
    report.table(title, ("processes", "transitions a second", "of so many times one"), rows)
    report.hold(f"{SIX} processes with commits of {COMMIT} ms, of {SIX} times one", share / SIX, least=0.9)


# -- invoices ------------------------------------------------------------------------------------------------------


def made(kind: str, url: str, where: str, count: int, places: int, workers: int = 1) -> Figures:
    """Have invoices made, by processes at the same time; the rate is the service's."""
    import invoices

    if kind == "worker":
        asyncio.run(invoices.load(where, count))
    if kind == "queue":
        asyncio.run(invoices.defer(where, count))
    said = together([("invoices.py", kind, url, where, count, places)] * workers)
    taken = counted(url)
    if taken["submissions"] != count or taken["polls"] < count:
        raise RuntimeError(f"{kind}: the service took {taken}, not {count}")
    return {"rate": count / taken["seconds"], "cpu": sum(one["cpu"] for one in said) / count}


def invoices_made(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    database = servers.with_queue(server)
    labels = {
        "embedded": "run file (SQLite)",
        "worker": "**worker of a run on a server**",
        "naive": "psycopg, a commit a row",
        "queue": "procrastinate alone, a job an invoice",
    }
    for latency in (0.02, 0.05):
        most = 4_000 if options.quick else 8_000

        def measured(kind: str, latency: float = latency, most: int = most) -> Figures:
            count = most if kind in {"embedded", "worker"} else most // 8
            with folder(options) as place, service(latency) as url:
                where = place if kind == "embedded" else database.address(f"run-{time.monotonic_ns()}")
                used = servers.cpu(server)
                found = made(kind, url, where, count, PLACES)
                return found | {"server": (servers.cpu(server) - used) / count}

        found = in_turn([*labels], options.rounds, measured)
        rows = [
            (
                label,
                f"{middle(found, kind, 'rate'):,.0f}",
                f"{ratio(found, kind, 'embedded', 'rate'):.2f}",
                f"{middle(found, kind, 'cpu') * 1e6:.0f}",
                "" if kind == "embedded" else f"{middle(found, kind, 'server') * 1e6:.0f}",
            )
            for kind, label in labels.items()
        ]
        head = ("who", "invoices a second", "of a file", "client CPU us", "database CPU us")
        title = (
            f"Invoices, a service of {latency * 1e3:g} ms, {PLACES} places, {most:,} a round, of the others an eighth"
        )
        report.table(title, head, rows)
        what = f"invoices a second at {latency * 1e3:g} ms, of a file"
        report.hold(what, ratio(found, "worker", "embedded", "rate"), least=0.9)


def workers(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    """Workers that have so few places that the CPU is idle."""
    database, count = servers.with_queue(server), 160 if options.quick else 600

    def measured(kind: str) -> Figures:
        number = int(kind)
        with service(0.05) as url:
            where = database.address(f"run-{time.monotonic_ns()}")
            return made("worker", url, where, count * number, FEW, number)

    found = in_turn(["1", "2", "4"], options.rounds, measured)
    rows = [
        (kind, f"{middle(found, kind, 'rate'):,.1f}", f"{ratio(found, kind, '1', 'rate') / int(kind):.2f}")
        for kind in found
    ]
    title = f"Workers of one run, a service of 50 ms, {FEW} places each, {count} invoices a worker"
    report.table(title, ("workers", "invoices a second", "of so many times one"), rows)
    for kind in ("2", "4"):
        share = ratio(found, kind, "1", "rate") / int(kind)
        report.hold(f"{kind} workers at 50 ms, of {kind} times one", share, least=0.95)


# -- how long a run may be -----------------------------------------------------------------------------------------


def large_run(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    import large

    database, rows = servers.with_queue(server), []
    few = 100_000 if options.quick else 1_000_000
    first, again = asyncio.run(large.intake(database.address("taken-in"), few))
    rows.append((f"intake of {few:,} ids by the library; the same again, all known", f"{first:.1f} s; {again:.1f} s"))
    begun = time.perf_counter()
    where, run = large.made(database, options.items)
    rows.append((f"{options.items:,} items made in SQL", f"{time.perf_counter() - begun:.0f} s"))
    database.psql("ANALYZE invoicing.items")
    large.left(database, run)
    asked = asyncio.run(large.asked(where, run, 3 if options.quick else 9))
    for what, (cold, warm) in asked.items():
        rows.append((f"{what}: the first time; median", f"{cold:.3f} s; {warm:.4f} s"))
    number, seconds = asyncio.run(large.swept(where))
    rows.append((f"sweep that puts {number} in doubt", f"{seconds:.3f} s"))
    read = min(options.items, few)
    [paged] = together([("large.py", "page", where, read)])
    rows.append((f"memory of a reader of {read:,}: after a tenth; after all", _memory(paged)))
    with service(0.005) as url:
        [worked] = together([("large.py", "work", where, url, 5 if options.quick else 30, PLACES)])
    rows.append((f"memory of a worker that did {worked['items']:,}: after a third of it; at the end", _memory(worked)))
    [(size, items)] = database.psql(
        "SELECT pg_database_size(current_database()), pg_total_relation_size('invoicing.items')"
    )
    rows.append(("the database; its items with their indexes", f"{size / 2**20:,.0f} MiB; {items / 2**20:,.0f} MiB"))
    report.table(f"A run of {options.items:,} items", ("what", "takes"), rows)
    for what, bound in (("planner", 1.0), ("`runs show`", 1.0), ("sweep", 0.1)):
        report.hold(f"{what} of {options.items:,} items", max(asked[what]), most=bound, unit=" s")
    report.hold("sweep that finds some", seconds, most=0.1, unit=" s")
    for what, found in (("reader", paged), ("worker", worked)):
        report.hold(f"memory of a {what}, of what it was early on", found["late"] / found["early"], most=1.1)


def _memory(found: dict[str, Any]) -> str:
    return f"{found['early']:.0f} MiB; {found['late']:.0f} MiB"


# -- an hour -------------------------------------------------------------------------------------------------------


def soak(report: Report, server: PostgresServer, options: argparse.Namespace) -> None:
    rows = []
    shares = {}
    for beside in ("alone", "beside an open transaction"):
        database = servers.with_queue(server)
        with ExitStack() as stack:
            found = soaked(database, options, stack, is_open=beside != "alone")
        tenth = max(5, len(found) // 10)
        found = found[min(5, len(found) // 10) :]  # it has begun by then
        early, late = median(found[:tenth]), median(found[-tenth:])
        shares[beside] = late / early
        dead = database.psql(
            "SELECT relname::text, n_live_tup, n_dead_tup, autovacuum_count, pg_total_relation_size(relid)"
            " FROM pg_stat_user_tables WHERE schemaname = 'invoicing' AND relname IN ('items', 'tally', 'workers')"
        )
        size = ", ".join(
            f"{name} {size / 2**20:,.0f} MiB, {gone:,} dead, {times} vacuums" for name, _, gone, times, size in dead
        )
        rows.append((beside, f"{sum(found):,}", f"{early:,.0f}", f"{late:,.0f}", f"{late / early:.2f}", size))
        database.drop()
    head = ("", "transitions", "a second at first", "at the end", "share", "tables at the end")
    report.table(f"{options.soak:g} s at full rate, {WRITERS} writers, autovacuum as shipped", head, rows)
    report.hold("rate at the end, of that at first", shares["alone"], least=0.9)
    report.hold("the same beside an open transaction", shares["beside an open transaction"], least=0.9)


def soaked(database: Database, options: argparse.Namespace, stack: ExitStack, *, is_open: bool) -> list[int]:
    """Transitions in each second."""
    import psycopg

    lead = 200_000
    where, run = servers.planned_run(database, lead)
    if is_open:
        other = stack.enter_context(psycopg.connect(database.address(run=None), autocommit=False))
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM invoicing.items")
    place = Path(stack.enter_context(folder(options)), "progress")
    call = ("soak.py", where, options.soak, WRITERS, place)
    [process] = stack.enter_context(started([call]))
    process.go()
    until, made = time.monotonic() + options.soak, lead
    while time.monotonic() < until:
        time.sleep(0.5)
        if place.exists() and int(place.read_text() or 0) > made - lead // 2:
            servers.more_items(database, run, made + 1, made + 20_000)
            made += 20_000
    seconds: list[int] = process.line()["seconds"]
    return seconds


# -- the whole -----------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Report, PostgresServer, argparse.Namespace], None]] = {
    "transitions": transitions,
    "far": far,
    "invoices": invoices_made,
    "workers": workers,
    "large": large_run,
    "soak": soak,
}


def header(server: PostgresServer, options: argparse.Namespace) -> list[str]:
    [(said,)] = server.psql("SHOW server_version")
    packages = ", ".join(f"{name} {version(name)}" for name in ("psycopg", "psycopg-pool", "procrastinate", "aiohttp"))
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, "
        f"PostgreSQL {said.split()[0]} with fsync, SQLite {sqlite3.sqlite_version}, {packages}. "
        f"{options.rounds} rounds, medians."
    )
    return [machine]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less, and a run of 200,000 items")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bound is missed")
    parser.add_argument("--readme", action="store_true", help="put the figures into the README beside this file")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--items", type=int, help="of the large run; 10,000,000, with --quick 200,000")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds at full rate, twice; not done without it")
    parser.add_argument("--disk", default=str(HERE), help="a folder on a real disk, for the run files")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.items = options.items or (200_000 if options.quick else 10_000_000)
    options.only = options.only or [name for name in SECTIONS if name != "soak"]
    if options.soak and "soak" not in options.only:
        options.only.append("soak")
    if "soak" in options.only and not options.soak:
        options.soak = 60.0
    return options


def into_readme(sections: dict[str, list[str]]) -> None:
    """Put the lines of each section between its marks."""
    readme = HERE / "README.md"
    text = readme.read_text()
    for name, lines in sections.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, rest = text.split(begin)
        text = "\n".join([head + begin, *lines, "", end + rest.split(end)[1]])
    readme.write_text(text)


def main() -> int:
    options = parsed()
    missed, sections = [], {}
    for name in options.only:
        report, load = Report(), os.getloadavg()[0]
        with servers.running() as server:
            report.lines += header(server, options)
            SECTIONS[name](report, server, options)
        report.lines[0] += f" Load before and after: {load:.1f}, {os.getloadavg()[0]:.1f}."
        print("\n".join([f"\n## {name}\n", *report.lines]), flush=True)
        sections[name] = report.lines
        missed += report.missed
    if options.readme:
        into_readme(sections)
    for what in missed:
        print(f"MISSED: {what}", file=sys.stderr)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
