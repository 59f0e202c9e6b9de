"""Measures document downloads beside other clients and prints the tables of this folder's README.

Every client runs in its own process, in turn and in an order that rotates, against a fresh service process; what it
left on disk is counted and compared before its figures count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import peers
import server

HERE = Path(__file__).resolve().parent
MIB = 2**20
SMALL = 1_500
LARGE = 2**30
LATENCY, WIDE, SHARE = 0.05, 64, 0.2
SAMPLE = 20

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

BASE, OURS = "aiohttp", "ours"
LABELS = {
    "aiohttp": "aiohttp + plain write",
    "aiohttp-uvloop": "aiohttp + plain write, uvloop",
    "aiohttp-retry": "aiohttp + plain write + retry loop",
    "aiohttp-fsync": "aiohttp + write + fsync",
    "aiohttp-fsync-threads": "aiohttp + write + fsync in threads",
    "aiohttp-aiofiles": "aiohttp + aiofiles",
    "httpx-aiofiles": "httpx + aiofiles",
    "requests-threads": "requests + threads",
    "requests-threads-no-env": "requests + threads, trust_env off",
    "curl-parallel": "curl --parallel",
    "pyreqwest": "pyreqwest (Rust) + plain write",
    "ours": "**ours**",
    "ours-uvloop": "**ours, uvloop**",
    "ours-durable": "**ours, durable**",
    "ours-used-folder": "**ours, into a folder in use**",
}
CPU_PEERS = (
    "aiohttp",
    "ours",
    "ours-used-folder",
    "aiohttp-aiofiles",
    "httpx-aiofiles",
    "requests-threads",
    "requests-threads-no-env",
    "curl-parallel",
    "pyreqwest",
    "aiohttp-uvloop",
    "ours-uvloop",
)
FSYNC_PEERS = ("aiohttp", "ours", "ours-durable", "aiohttp-fsync", "aiohttp-fsync-threads")
REFUSED_PEERS = ("aiohttp-retry", "ours", "ours-uvloop")
MEMORY_PEERS = ("aiohttp", "ours")
CPU_LIMITS = {"aiohttp": 1.25, "aiohttp-aiofiles": 0.75, "httpx-aiofiles": 0.2, "requests-threads": 0.35}


@dataclass(frozen=True)
class Case:
    """One run of one peer: what it downloads and how the service behaves."""

    peer: str
    documents: int
    concurrency: int
    folder: str
    warm_up: int = 0
    size: int = server.SIZE
    latency: float = 0.0
    refuse: float = 0.0


@dataclass(frozen=True)
class Result:
    """What came of a case: seconds and bytes of the client, and what the service did meanwhile."""

    case: Case
    wall: float
    cpu: float
    memory: int
    calls: int
    service_cpu: float
    held: float

    @property
    def cpu_each(self) -> float:
        """Microseconds of CPU a document."""
        return self.cpu / self.case.documents * 1e6

    @property
    def wall_each(self) -> float:
        """Microseconds of wall time a document."""
        return self.wall / self.case.documents * 1e6

    @property
    def service_each(self) -> float:
        """Microseconds of the service's CPU a call."""
        return self.service_cpu / self.calls * 1e6


@dataclass(frozen=True)
class Check:
    """A figure beside what it must reach."""

    what: str
    value: float
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        bound = "at most" if self.at_most else "at least"
        return f"| {self.what} | {self.value:.2f}{self.unit} | {bound} {self.limit:g}{self.unit} | {self.verdict} |"

    @property
    def verdict(self) -> str:
        return "reached" if self.reached else "**missed**"


@dataclass(frozen=True)
class Asked:
    """The options of this run."""

    rounds: int
    memory_rounds: int
    documents: int
    concurrency: int
    ids: tuple[int, ...]
    fast: str
    disk: str
    pin: bool
    only: frozenset[str]


@dataclass
class Report:
    """Everything measured so far, the lines to print and the checks."""

    asked: Asked
    lines: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        self.lines += lines

    def wanted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if not self.asked.only or name in self.asked.only)

    def rounds(self, names: tuple[str, ...], count: int, case: Callable[[str], Case], *, pin: bool = True) -> Runs:
        """Run every peer once a round, the first one moving to the end each time."""
        runs: dict[str, list[Result]] = {name: [] for name in names}
        for turn in range(count):
            first = turn % max(len(names), 1)
            for name in names[first:] + names[:first]:
                result = run(case(name), pin=pin and self.asked.pin)
                runs[name].append(result)
                self.results.append(result)
                note(f"round {turn + 1}/{count} {name}: {result.cpu_each:.0f} us CPU, {result.wall:.2f} s")
        return Runs({name: results for name, results in runs.items() if results})


@dataclass(frozen=True)
class Runs:
    """The results of one section, by peer; the n-th of each belong to one round."""

    by_peer: dict[str, list[Result]]

    def middle(self, peer: str, of: Callable[[Result], float]) -> float:
        return median(map(of, self.by_peer[peer]))

    def ratio(self, peer: str, base: str, of: Callable[[Result], float]) -> float | None:
        """The median of the rounds' own ratios."""
        if peer not in self.by_peer or base not in self.by_peer:
            return None
        pairs = zip(self.by_peer[peer], self.by_peer[base], strict=True)
        return median(of(one) / of(other) for one, other in pairs)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """This process's environment without proxies, which some clients would use on loopback."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def script(name: str, cpu: int, *options: str, pin: bool) -> list[str]:
    pinned = ("--cpu", str(cpu)) if pin else ()
    return [sys.executable, str(HERE / name), *options, *pinned]


@contextmanager
def service(case: Case, *, pin: bool) -> Iterator[tuple[int, dict[str, float]]]:
    """A service process of its own: its port, and after the block what it did."""
    options = ("--latency", str(case.latency), "--refuse", str(case.refuse), "--size", str(case.size))
    command = script("server.py", 1, *options, pin=pin)
    done: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        if process.stdout is None:
            raise RuntimeError("the service has no output")
        try:
            yield json.loads(process.stdout.readline())["port"], done
        finally:
            process.terminate()
            done.update(json.loads(process.stdout.readline() or "{}"))


def run(case: Case, *, pin: bool) -> Result:
    """Run one peer and prove what it left, then remove it."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=case.folder)
    try:
        batch, warm = (Path(folder) / name for name in ("batch", "warm"))
        batch.mkdir()
        warm.mkdir()
        with service(case, pin=pin) as (port, done):
            measured = client(case, port, batch, warm, pin=pin)
        prove(case, batch)
    finally:
        shutil.rmtree(folder)
    return Result(
        case,
        measured["wall"],
        measured["cpu"],
        int(measured["memory"]),
        int(done["calls"]),
        done["cpu"],
        done["held"],
    )


def client(case: Case, port: int, batch: Path, warm: Path, *, pin: bool) -> dict[str, float]:
    options = {
        "--port": port,
        "--to": batch,
        "--warm-to": warm,
        "--documents": case.documents,
        "--concurrency": case.concurrency,
        "--warm-up": case.warm_up,
    }
    words = (str(word) for option in options.items() for word in option)
    command = script("peers.py", 0, case.peer, *words, pin=pin)
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=True).stdout
    measured: dict[str, float] = json.loads(output)
    return measured


def prove(case: Case, folder: Path) -> None:
    """Raise `RuntimeError` unless the folder holds every document whole and nothing else."""
    names, wrong = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if not entry.name.endswith(".pdf") or entry.stat().st_size != case.size:
                wrong.append(entry.name)
    warm = case.warm_up if case.peer == "ours-used-folder" else 0
    if wrong or len(names) != case.documents + warm:
        raise RuntimeError(f"{case.peer} left {len(names)} files, {len(wrong)} of them wrong: {wrong[:3]}")
    if case.size <= server.STREAM_ABOVE:
        prove_content(case, folder, names[:SAMPLE])


def prove_content(case: Case, folder: Path, names: list[str]) -> None:
    expected = hashlib.sha256(server.document(case.size).whole()).digest()
    for name in names:
        if hashlib.sha256((folder / name).read_bytes()).digest() != expected:
            raise RuntimeError(f"{case.peer} saved something else as {name}")


def mib(size: float) -> str:
    return f"{size / MIB:.1f}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def cpu_each(result: Result) -> float:
    return result.cpu_each


def wall_each(result: Result) -> float:
    return result.wall_each


def memory(result: Result) -> float:
    return result.memory


def service_line(runs: Runs) -> str:
    """How much the service took: the busiest share of any run says whether it held a client up."""
    every = [result for results in runs.by_peer.values() for result in results]
    each = median(result.service_each for result in every)
    busiest = max(result.service_cpu / result.wall for result in every)
    return f"The service took {each:.0f} µs of CPU a call and was busy at most {busiest:.0%} of a run."


def cpu_section(report: Report) -> None:
    """No latency, tmpfs."""
    asked = report.asked
    names = report.wanted(CPU_PEERS)
    warm = min(asked.documents, 10 * asked.concurrency)
    runs = report.rounds(
        names, asked.rounds, lambda peer: Case(peer, asked.documents, asked.concurrency, asked.fast, warm)
    )
    report.add(
        f"### No latency, tmpfs ({asked.documents:,} documents, concurrency {asked.concurrency})",
        "",
        "| client | CPU µs/doc | wall µs/doc | CPU / aiohttp | wall / aiohttp | ours / it, CPU | peak MiB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    )
    for name in runs.by_peer:
        cells = (
            LABELS[name],
            f"{runs.middle(name, cpu_each):.0f}",
            f"{runs.middle(name, wall_each):.0f}",
            times(runs.ratio(name, BASE, cpu_each)),
            times(runs.ratio(name, BASE, wall_each)),
            times(runs.ratio(OURS, name, cpu_each)),
            mib(runs.middle(name, memory)),
        )
        report.add(f"| {' | '.join(cells)} |")
    report.add("", service_line(runs), "")
    for peer, limit in CPU_LIMITS.items():
        value = runs.ratio(OURS, peer, cpu_each)
        if value is not None:
            report.checks.append(Check(f"CPU a document, ours / {LABELS[peer]}", value, limit))


def fsync_section(report: Report) -> None:
    """fsync on a real disk."""
    asked = report.asked
    names = report.wanted(FSYNC_PEERS)
    warm = min(asked.documents, 10 * asked.concurrency)

    def case(peer: str) -> Case:
        os.sync()  # what the run before left to write is not this one's
        return Case(peer, asked.documents, asked.concurrency, asked.disk, warm)

    runs = report.rounds(names, asked.rounds, case)
    kind = filesystem(asked.disk)
    report.add(
        f"### With and without fsync, a real disk ({kind}, {asked.documents:,} documents, "
        f"concurrency {asked.concurrency})",
        "",
        "| client | CPU µs/doc | wall µs/doc | wall / aiohttp | wall / ours | peak MiB |",
        "|---|--:|--:|--:|--:|--:|",
    )
    for name in runs.by_peer:
        cells = (
            LABELS[name],
            f"{runs.middle(name, cpu_each):.0f}",
            f"{runs.middle(name, wall_each):.0f}",
            times(runs.ratio(name, BASE, wall_each)),
            times(runs.ratio(name, OURS, wall_each)),
            mib(runs.middle(name, memory)),
        )
        report.add(f"| {' | '.join(cells)} |")
    report.add("")
    value = runs.ratio("ours-durable", OURS, wall_each)
    if value is not None:
        report.checks.append(Check("wall, ours durable / ours, real disk", value, 2.0))


def refusals(case: Case) -> int:
    """How many of the measured orders the service refuses once."""
    ids = (peers.order_id(number) for number in range(case.documents))
    return sum(server.refused(item.encode(), case.refuse) for item in ids) if case.refuse else 0


def share(result: Result) -> float:
    """The share of the ideal rate for the calls that have to be made, which is concurrency / latency."""
    case = result.case
    ideal = (case.documents + refusals(case)) * case.latency / case.concurrency
    return ideal / result.wall


def latency_section(report: Report) -> None:
    """50 ms of service latency, with and without refusals."""
    asked = report.asked
    plain = report.rounds(
        report.wanted(CPU_PEERS),
        asked.rounds,
        lambda peer: Case(peer, 100 * WIDE, WIDE, asked.fast, 2 * WIDE, latency=LATENCY),
        pin=False,
    )
    latency_table(report, f"{LATENCY * 1000:g} ms of latency, concurrency {WIDE}, {100 * WIDE:,} documents", plain)
    refusing = report.rounds(
        report.wanted(REFUSED_PEERS),
        asked.rounds,
        lambda peer: Case(peer, 200 * WIDE, WIDE, asked.fast, 2 * WIDE, latency=LATENCY, refuse=SHARE),
        pin=False,
    )
    title = f"The same, {SHARE:.0%} of the orders answering SYS_DEP_503 once, {200 * WIDE:,} documents"
    latency_table(report, title, refusing)
    for runs, limit, what in ((plain, 0.95, ""), (refusing, 0.9, f", {SHARE:.0%} refused once")):
        for name in ("ours", "ours-uvloop"):
            if name in runs.by_peer:
                label = f"share of the ideal rate, {LABELS[name]}{what}"
                report.checks.append(Check(label, runs.middle(name, share), limit, at_most=False))


def latency_table(report: Report, title: str, runs: Runs) -> None:
    report.add(
        f"### {title}",
        "",
        "| client | documents/s | share of the ideal rate | CPU µs/doc | peak MiB |",
        "|---|--:|--:|--:|--:|",
    )
    for name in runs.by_peer:
        cells = (
            LABELS[name],
            f"{1e6 / runs.middle(name, wall_each):.0f}",
            f"{runs.middle(name, share):.3f}",
            f"{runs.middle(name, cpu_each):.0f}",
            mib(runs.middle(name, memory)),
        )
        report.add(f"| {' | '.join(cells)} |")
    every = [result.held for results in runs.by_peer.values() for result in results]
    if every:
        report.add("", f"The service held an answer back for {median(every) * 1000:.1f} ms in the mean.")
    report.add("")


def memory_section(report: Report) -> None:
    """Peak memory by the number of ids and by the size of one document."""
    asked = report.asked
    names = report.wanted(MEMORY_PEERS)

    def measured(documents: int, size: int) -> Runs:
        return report.rounds(
            names,
            asked.memory_rounds,
            lambda peer: Case(peer, documents, asked.concurrency, asked.fast, size=size),
        )

    by_ids = {count: measured(count, SMALL) for count in asked.ids}
    by_size = {size: measured(1, size) for size in (server.SIZE, LARGE)}
    titles = [f"{count:,} ids" for count in by_ids] + [f"one of {size:,} bytes" for size in by_size]
    columns = [*by_ids.values(), *by_size.values()]
    report.add(
        f"### Peak memory in MiB (documents of {SMALL:,} bytes, then one document)",
        "",
        f"| client | {' | '.join(titles)} |",
        f"|---|{'--:|' * len(titles)}",
    )
    for name in names:
        cells = [LABELS[name], *(mib(runs.middle(name, memory)) for runs in columns)]
        report.add(f"| {' | '.join(cells)} |")
    report.add("")
    if OURS in names:
        memory_check(report, f"{max(by_ids):,} ids over {min(by_ids):,}", by_ids[max(by_ids)], by_ids[min(by_ids)], 24)
        memory_check(report, "one document of 1 GiB over one of 42 KB", by_size[LARGE], by_size[server.SIZE], 8)


def memory_check(report: Report, what: str, high: Runs, low: Runs, limit: float) -> None:
    value = (high.middle(OURS, memory) - low.middle(OURS, memory)) / MIB
    report.checks.append(Check(f"peak memory, {what}", value, limit, unit=" MiB"))


SECTIONS: dict[str, Callable[[Report], None]] = {
    "cpu": cpu_section,
    "fsync": fsync_section,
    "latency": latency_section,
    "memory": memory_section,
}


def filesystem(folder: str) -> str:
    """The type of the file system a folder lies on, or `unknown`."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    place = Path(folder).resolve()
    rows = (line.split()[1:3] for line in mounts.read_text().splitlines())
    holding = [(len(point), kind) for point, kind in rows if place.is_relative_to(point)]
    return max(holding)[1] if holding else "unknown"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def versions() -> str:
    found = []
    for name in ("aiohttp", "uvloop", "aiofiles", "httpx", "requests", "urllib3", "pyreqwest"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    curl = shutil.which("curl")
    if curl:
        output = subprocess.run([curl, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append(" ".join(output.split()[:2]))
    return ", ".join(found)


def header(asked: Asked) -> list[str]:
    pinned = "service on core 1, clients on core 0" if asked.pin else "not pinned"
    system = f"{platform.system()} {platform.release()}, {cpu_name()}, {os.cpu_count()} cores ({pinned})"
    load = os.getloadavg()[0]
    return [
        f"- Machine: {system}, load {load:.1f} at the start",
        f"- Python {platform.python_version()}; {versions()}",
        f"- Folders: {filesystem(asked.fast)} and, for fsync, {filesystem(asked.disk)}",
        f"- Medians of {asked.rounds} rounds ({asked.memory_rounds} for memory); a ratio is the median of its rounds",
        "",
    ]


def into_readme(readme: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks of the README."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise RuntimeError(f"{readme.name} lacks {BEGIN} or {END}")
    readme.write_text("\n".join([before + begin, *lines, end + after]))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory-rounds", type=int, default=1, help="rounds of the memory section (a million ids each)"
    )
    parser.add_argument("--documents", type=int, default=4_000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--section", choices=sorted(SECTIONS), action="append", help="may be repeated; all by default")
    parser.add_argument("--peer", choices=sorted(LABELS), action="append", help="only these; may be repeated")
    parser.add_argument("--ids", default="1000,100000,1000000", help="numbers of ids of the memory section")
    parser.add_argument("--tmpfs", default="/dev/shm", help="a folder in memory")
    parser.add_argument("--disk", default=str(HERE.parents[1] / "build" / "benchmark"), help="a folder on a real disk")
    parser.add_argument("--json", help="write every single result to this file")
    parser.add_argument("--no-pin", action="store_true", help="let the system choose cores")
    parser.add_argument("--readme", action="store_true", help="put the report into this folder's README.md")
    parser.add_argument("--check", action="store_true", help="exit 1 if a required figure is missed")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    for folder in (options.tmpfs, options.disk):
        Path(folder).mkdir(parents=True, exist_ok=True)
    asked = Asked(
        options.rounds,
        options.memory_rounds,
        options.documents,
        options.concurrency,
        tuple(int(word) for word in options.ids.split(",")),
        options.tmpfs,
        options.disk,
        pin=not options.no_pin and hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1,
        only=frozenset(options.peer or ()),
    )
    report = Report(asked, lines=header(asked))
    for name in options.section or SECTIONS:
        SECTIONS[name](report)
    report.add("### What must be reached", "", "| figure | here | must be | |", "|---|--:|--:|---|")
    report.add(*map(str, report.checks))
    print("\n".join(report.lines))
    if options.readme:
        into_readme(HERE / "README.md", report.lines)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(result) for result in report.results], indent=1) + "\n")
    missed = [check for check in report.checks if not check.reached]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
