"""Measures what it costs to put a document, into a folder and into object stores, and prints the table of this README.

    python benchmarks/objects/bench.py [--check] [--readme] [--rounds N] [--documents N] [--json FILE] [--folder FOLDER]

Each place is a process of its own, in turn and in an order that rotates; what it put is counted and compared by hash.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from invoicing_async import VERSION
from invoicing_async._files.places import Place, Stores, place_of
from invoicing_async._files.publish import Destination, OnExisting
from invoicing_async._files.writer import DiskWriter

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SIZE, AT_ONCE, WARM = 42_137, 32, 320
DISK, MEMORY, S3 = "a folder (tmpfs)", "objects in memory", "S3 over loopback (moto)"
AT_MOST = 1.1
BUCKET = "bench"


def body(number: int) -> bytes:
    """A document of its own, of the size of an order's invoice."""
    tail = b"\nstartxref\n9\n%%EOF\n"
    return (b"%%PDF-1.7\n%%%d\n" % number).ljust(SIZE - len(tail), b"x") + tail


async def put_all(place: Place, bodies: list[bytes], first: int) -> list[str]:
    """Put the bodies, so many at once, as a download does once it has one; give what each is known by."""
    left, digests = iter(enumerate(bodies, first)), [""] * len(bodies)

    async def putting() -> None:
        for number, content in left:
            to = Destination(folder=place.base, target=place.base / f"{number}.pdf", on_existing=OnExisting.KEEP)
            digests[number - first] = (await place.store(to, content)).sha256

    await asyncio.gather(*(putting() for _ in range(AT_ONCE)))
    return digests


def pinned(core: int) -> None:
    """Stay on one core, threads included, where there are two: the server has the other."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


async def measured(where: str, count: int) -> dict[str, float]:
    """Put so many documents and return microseconds a document, after a look that each is there."""
    pinned(0)
    disk, stores = DiskWriter(), Stores()
    place = place_of(where, disk, stores)
    await place.prepare(durable=False, shared=False)
    await put_all(place, [body(number) for number in range(WARM)], 0)
    bodies = [body(number) for number in range(WARM, WARM + count)]
    cpu, wall = process_time(), perf_counter()
    digests = await put_all(place, bodies, WARM)
    cpu, wall = process_time() - cpu, perf_counter() - wall
    for number, (content, digest) in enumerate(zip(bodies, digests, strict=True), WARM):
        known = hashlib.sha256(content).hexdigest()
        fault = await place.compare(place.base / f"{number}.pdf", size=SIZE, digest=known)
        if digest != known or fault is not None:
            raise SystemExit(f"{where}: document {number} {fault}")
    await stores.close()
    await disk.close()
    return {"cpu": cpu / count * 1e6, "wall": wall / count * 1e6}


SERVER = """
import os, sys
if hasattr(os, "sched_setaffinity") and os.cpu_count() > 1:
    os.sched_setaffinity(0, {1})
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def moto() -> Iterator[dict[str, str]]:
    """Moto's server in a process of its own, and what leads there."""
    command = [sys.executable, "-c", SERVER]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **streams) as server:  # type: ignore[call-overload]
        port = int(server.stdout.readline())
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{BUCKET}")
        connection.getresponse().read()
        connection.close()
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }
        server.stdin.close()


def one_round(places: list[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    found = {}
    for name in places:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, moto() as leading:
            where = {DISK: folder, MEMORY: "memory://bench/in", S3: f"s3://{BUCKET}/in"}[name]
            count = options.documents if name != S3 else options.documents // 4
            command = [sys.executable, __file__, "--place", where, "--documents", str(count)]
            told = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **leading})
            found[name] = json.loads(told.stdout)
    return found


def table(rounds: list[dict[str, dict[str, float]]]) -> tuple[str, bool]:
    of: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured_round in rounds:
        for name, figures in measured_round.items():
            for kind, value in figures.items():
                of[name][kind].append(value)
            of[name]["ratio"].append(figures["cpu"] / measured_round[DISK]["cpu"])
    packages = ", ".join(f"{name} {version(name)}" for name in ("obstore", "moto"))
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    how = f"Medians of {len(rounds)} rounds; documents of {SIZE:,} bytes, {AT_ONCE} at once."
    lines = [
        f"invoicing_async {VERSION}; {machine}; {packages}. {how}",
        "",
        "| a put into | CPU µs | wall µs | CPU, ratio | at most |",
        "|---|--:|--:|--:|--:|",
    ]
    reached = median(of[MEMORY]["ratio"]) <= AT_MOST
    for name in (DISK, MEMORY, S3):
        cpu, wall, ratio = (median(of[name][kind]) for kind in ("cpu", "wall", "ratio"))
        most = f"{AT_MOST}" if name == MEMORY else ""
        lines.append(f"| {name} | {cpu:.0f} | {wall:.0f} | {ratio:.2f} | {most} |")
    return "\n".join(lines) + "\n", reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the required figure is missed")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--json", type=Path, help="keep every figure")
    parser.add_argument("--folder", default="/dev/shm", help="where the folder is made")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.place:
        print(json.dumps(asyncio.run(measured(options.place, options.documents))))
        return
    names = [DISK, MEMORY, S3]
    rounds: list[dict[str, Any]] = [
        one_round(names[at % 3 :] + names[: at % 3], options) for at in range(options.rounds)
    ]
    text, reached = table(rounds)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    if options.readme:
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        readme.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")
    if options.check and not reached:
        sys.exit(1)


if __name__ == "__main__":
    main()
