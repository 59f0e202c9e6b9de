"""What an outage, a small service and a moody one make of this library and of others' rules for retrying.

    python benchmarks/outage/bench.py [--quick] [--check] [--readme] [--json FILE] [--only SECTION] [--ours]

Time is virtual: an outage of ten minutes takes as long as the requests that are sent into it, and the figures are the
same on every machine.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model import MEDIAN, RTT, SIGMA, Down, Profile
from rivals import RIVALS
from scenarios import OURS, Figures, Scenario, busy_for, outage, played

import invoicing_async

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
FIXED = "best fixed"
TENACITY = next(iter(RIVALS))
GOES_ON = f"{OURS}, goes on"  # with `Limits(stop_after=None)`, where the default ends a batch

POLICY = getattr(invoicing_async, "OutagePolicy", None)
PROBE, CEILING = (POLICY().probe, POLICY().ceiling) if POLICY is not None else (1.0, 4.0)
"""Seconds between the first two probes, and the most between two."""
JITTER = 1.25  # times as many probes as at the full distances


class Limit(NamedTuple):
    """`--check` fails above `most`, or below `least`. `quick` is false where the short form is too short for it."""

    most: float = math.inf
    least: float = -math.inf
    quick: bool = True


NOTHING = Limit(0)
LIMITS: dict[str, dict[str, Limit]] = {
    "outage": {
        "failed": NOTHING,
        "not done": NOTHING,
        "sent while down, over the bound": Limit(1.0),
        "seconds to 95 % of the rate": Limit(5.0),
        "sent while down, of tenacity's": Limit(0.01, quick=False),
    },
    "one lane": {
        "failed": NOTHING,
        "not done": NOTHING,
        "sent while down, over the bound": Limit(1.0),
        "the other lanes' rate while down": Limit(least=0.95),
    },
    "Retry-After": {"failed": NOTHING, "not done": NOTHING, "sent while down, over the bound": Limit(1.0)},
    "small": {
        "failed": NOTHING,
        "not done": NOTHING,
        "refused for want of a place, share": Limit(0.05),
        "time, of the best fixed number's": Limit(1.10),
    },
    "changing": {"failed": NOTHING, "not done": NOTHING, "time, of the best fixed number's": Limit(1.25)},
    "moody, 30 %": {"failed": NOTHING, "not done": NOTHING, "pauses": NOTHING, "sent / needed": Limit(1.45)},
    "moody, 5 %": {"failed": NOTHING, "not done": NOTHING, "pauses": NOTHING, "sent / needed": Limit(1.06)},
    "beyond": {},
}
"""What the library is held to, by section. The sections after the issue's words; what is `beyond` is only shown."""


def bound(scenario: Scenario) -> float:
    """How many requests may be sent while the service is down: what is in flight, and one for each probe of a lane."""
    if scenario.profile.limited is not None:
        return scenario.concurrency
    lanes = scenario.profile.down[0].lanes or scenario.work.keys()
    each = sum(probes(down.end - down.begin) for down in scenario.profile.down)
    return scenario.clients * (scenario.concurrency + len(lanes) * each)


def probes(seconds: float) -> float:
    """How many probes there are in an outage: at distances that double up to the ceiling, and jittered."""
    return JITTER * (math.log2(CEILING / PROBE) + 1 + seconds / CEILING)


def outages(*, quick: bool) -> Iterator[Scenario]:
    seconds = 60.0 if quick else 600.0
    works = {
        "documents": {"documents": 20_000 if quick else 100_000},
        "submissions": {"submissions": 30_000},
        "wait_many": {"polls": 3_000 if quick else 5_000},
        "mixed": {"documents": 12_000, "submissions": 12_000, "polls": 2_000},
    }
    for name, work in works.items():
        begin = 30.0 if name == "documents" and not quick else 5.0 if quick else 15.0
        over = begin + seconds
        for refused in (False, True):
            if quick and (name, refused) not in {("documents", False), ("wait_many", True)}:
                continue
            title = f"{name}, {'connections refused' if refused else 'SYS_DEP_503'} for {seconds:g} s"
            ends = (over + 6.0, over + 8.0) if quick else (over + 10.0, over + 15.0)
            yield Scenario(title, outage(begin, seconds, refused=refused), work, ends=ends)


def small(*, quick: bool) -> Iterator[Scenario]:
    for capacity in (8,) if quick else (2, 8, 30):
        items = busy_for(20.0 if quick else 60.0, capacity)
        yield Scenario(
            f"{capacity} at once, {items:,} documents", Profile(capacity=((0.0, capacity),)), {"documents": items}
        )


def moody(chance: float, *, quick: bool) -> Scenario:
    return Scenario(f"{chance:.0%} SYS_DEP_503", Profile(chance=chance), {"documents": 5_000 if quick else 20_000})


def sections(*, quick: bool) -> dict[str, list[Scenario]]:
    begin, till = (5.0, 65.0) if quick else (10.0, 610.0)
    found = {
        "outage": list(outages(quick=quick)),
        "Retry-After": [
            Scenario(
                f"429, Retry-After: {till - begin:g}",
                Profile(limited=(begin, till)),
                {"documents": 8_000 if quick else 20_000},
            )
        ],
        "small": list(small(quick=quick)),
        "moody, 30 %": [moody(0.3, quick=quick)],
        "moody, 5 %": [moody(0.05, quick=quick)],
    }
    return found if quick else {**found, **long_sections()}


def long_sections() -> dict[str, list[Scenario]]:
    steps = ((0.0, 8), (20.0, 30), (40.0, 4))
    items = sum(busy_for(20.0, capacity) for _, capacity in steps)
    flapping = Profile(
        down=(Down(15.0, 75.0), Down(77.0, 137.0), Down(137.0, 157.0, share=0.3)),
    )
    fleet = Profile(down=(Down(20.0, 140.0),), capacity=((0.0, 100),))
    apart = {"documents": 60_000, "submissions": 30_000, "polls": 1_200}
    return {
        "one lane": [
            Scenario(
                "submissions down for 60 s, documents and wait_many not",
                outage(20.0, 60.0, lanes={"submissions"}),
                apart,
                ends=(95.0, 100.0),
            )
        ],
        "changing": [Scenario(f"8, 30, 4 at once, {items:,} documents", Profile(capacity=steps), {"documents": items})],
        "beyond": [
            Scenario("documents, SYS_DEP_503 for 40 s, 32 at once", outage(8.0, 40.0), {"documents": 20_000}, 32),
            Scenario("8 at once, 1,200 documents", Profile(capacity=((0.0, 8),)), {"documents": 1_200}),
            Scenario("down 60 s, well 2 s, down 60 s, 30 % for 20 s", flapping, {"documents": 50_000}),
            Scenario(
                "200 clients of 4, service of 100, down 120 s", fleet, {"documents": 380}, concurrency=4, clients=200
            ),
        ],
    }


class Row(NamedTuple):
    section: str
    scenario: Scenario
    client: str
    figures: Figures


def clients(section: str, scenario: Scenario, options: argparse.Namespace) -> Iterator[str]:
    """Who is to go through a scenario; how others retry does not depend on what is asked for."""
    yield OURS
    if section == "beyond" and scenario.clients == 1:
        yield GOES_ON
    if not options.ours:
        yield from RIVALS if scenario.work.keys() == {"documents"} and not options.quick else [TENACITY]
    if scenario.profile.capacity and scenario.clients == 1:
        places = {capacity for _, capacity in scenario.profile.capacity}
        parts = (1.0, 1.25, 1.5, 1.75, 2.0)
        yield from map(str, sorted({min(64, math.ceil(c * part)) for c in places for part in parts}))


def rows_of(section: str, scenario: Scenario, found: dict[str, Figures]) -> list[Row]:
    """Return a row for each client, and one for all the numbers at once: the one with which the work is done first."""
    rows = [Row(section, scenario, client, each) for client, each in found.items() if not client.isdecimal()]
    numbers = [client for client in found if client.isdecimal()]
    if numbers:
        best = min(numbers, key=lambda number: (found[number].time, int(number)))
        rows.append(Row(section, scenario, f"{FIXED}: {best}", found[best]))
    return rows


def held(rows: list[Row]) -> dict[str, float]:
    """What a scenario's limits are about, by name: the library's figures, alone and beside the others'."""
    scenario, ours = rows[0].scenario, rows[0].figures
    found: dict[str, float] = {
        "failed": ours.failed,
        "not done": ours.lost,
        "pauses": ours.pauses,
        "sent / needed": ours.amplification,
        "refused for want of a place, share": ours.crowded_share,
        "seconds to 95 % of the rate": math.inf if ours.back is None else ours.back,
        "the other lanes' rate while down": ours.other or 0.0,
    }
    if ours.down or scenario.begins:
        found["sent while down, over the bound"] = ours.down / bound(scenario)
    for row in rows:
        if row.client == TENACITY and row.figures.down:
            found["sent while down, of tenacity's"] = ours.down / row.figures.down
        if row.client.startswith(FIXED):
            found["time, of the best fixed number's"] = ours.time / row.figures.time if not ours.lost else math.inf
    return found


def missed(rows: list[Row], *, quick: bool) -> list[str]:
    """Every limit that one scenario breaks, in words."""
    values = held(rows)
    return [
        f"{rows[0].scenario.name}: {name} {value:,.3g}, must be {wanted(limit)}"
        for name, limit in LIMITS[rows[0].section].items()
        if name in values and (limit.quick or not quick)
        if not limit.least <= (value := values[name]) <= limit.most
    ]


def wanted(limit: Limit) -> str:
    return f"{limit.most:g} at most" if limit.most < math.inf else f"{limit.least:g} at least"


# The report.


COLUMNS = "| client | sent while down | failed | not done | 95 % of rate after, s | burst | sent / needed | took, s |"
PLACES = "| client | sent | refused, % | failed | not done | sent / needed | took, s | of best fixed |"


def header() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("attrs", "tenacity", "urllib3"))
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    model = f"median {MEDIAN * 1000:g} ms of work, lognormal {SIGMA:g}, {RTT * 1000:g} ms on the way"
    return f"invoicing_async {invoicing_async.VERSION}; {machine}; {packages}. Service: {model}."


def tables(section: str, rows: list[Row]) -> Iterator[str]:
    scenario = rows[0].scenario
    yield from ("", f"**{section}: {scenario.name}**", "")
    best = next((row.figures.time for row in rows if row.client.startswith(FIXED)), None)
    columns = COLUMNS if best is None else PLACES
    yield from (columns, "|---" + "|--:" * (columns.count("|") - 2) + "|")
    for row in rows:
        cells = by_outage(row.figures) if best is None else by_places(row.figures, best)
        yield f"| {row.client} | {' | '.join(cells)} |"
    if scenario.profile.down and scenario.profile.down[0].lanes:
        rates = ", ".join(f"{row.client} {row.figures.other:.2f}" for row in rows if row.figures.other is not None)
        yield from ("", f"Rate of the other operations while down, over what it was before: {rates}.")
    if scenario.begins:
        yield from ("", f"At most {bound(scenario):,.0f} may be sent while it is down.")


def by_outage(found: Figures) -> tuple[str, ...]:
    return (
        f"{found.down:,}",
        f"{found.failed:,}",
        f"{found.lost:,}",
        "" if found.burst is None else "never" if found.back is None else f"{found.back:.2f}",
        "" if found.burst is None else f"{found.burst:.2f}",
        f"{found.amplification:.3f}",
        f"{found.time:.1f}",
    )


def by_places(found: Figures, best: float) -> tuple[str, ...]:
    return (
        f"{found.sent:,}",
        f"{found.crowded_share:.1%}",
        f"{found.failed:,}",
        f"{found.lost:,}",
        f"{found.amplification:.3f}",
        f"{found.time:.1f}",
        f"{found.time / best:.2f}",
    )


def into_readme(lines: list[str]) -> None:
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text("\n".join([head + BEGIN, *lines, END + rest.split(END)[1]]))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short form: few scenarios, tenacity alone beside ours")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is broken")
    parser.add_argument("--readme", action="store_true", help="put the figures into the README beside this file")
    parser.add_argument("--json", type=Path, help="keep every figure")
    parser.add_argument("--only", choices=LIMITS, action="append", help="these sections alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes; the figures do not depend on it")
    parser.add_argument("--ours", action="store_true", help="the library alone, without the others")
    options = parser.parse_args()
    options.only = options.only or [*LIMITS]
    return options


def main() -> int:
    options = parsed()
    lines, broken, kept = [header()], list[str](), list[Row]()
    print(lines[0], flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        chosen = sections(quick=options.quick).items()
        each = [
            (name, one) for name, scenarios in chosen if not options.only or name in options.only for one in scenarios
        ]
        running = [[(who, pool.submit(played, one, who)) for who in clients(name, one, options)] for name, one in each]
        for (section, scenario), runs in zip(each, running, strict=True):
            rows = rows_of(section, scenario, {client: run.result() for client, run in runs})
            kept += rows
            broken += missed(rows, quick=options.quick)
            found = list(tables(section, rows))
            lines += found
            print(*found, sep="\n", flush=True)
    print("", *([f"MISSED: {one}" for one in broken] or ["Every limit holds."]), sep="\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU.")
    if options.json:
        figures = [[row.section, row.scenario.name, row.client, row.figures._asdict()] for row in kept]
        options.json.write_text(json.dumps({"header": lines[0], "figures": figures}, indent=2))
    if options.readme:
        into_readme(lines)
    return 1 if options.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
