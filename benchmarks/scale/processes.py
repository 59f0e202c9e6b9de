"""What the processes of this benchmark share: they get ready, wait for the word to go, and print one line of JSON."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE = 7_200.0


def environment() -> dict[str, str]:
    """The library and the support of its tests as they stand here."""
    paths = (ROOT, ROOT / "tests" / "support")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


class Started:
    """A process of a script beside this one, from its start to its result."""

    def __init__(self, script: str, *words: object) -> None:
        command = [sys.executable, str(HERE / script), *map(str, words)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(text)
        return found

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def started(calls: Sequence[Sequence[object]]) -> Iterator[list[Started]]:
    """Start processes, and wait until each is ready; those that still run at the end are killed."""
    processes = [Started(*map(str, call)) for call in calls]
    try:
        for process in processes:
            process.line()
        yield processes
    finally:
        for process in processes:
            process.close()


def together(calls: Sequence[Sequence[object]]) -> list[dict[str, Any]]:
    """Run processes at the same time, from when all of them are ready; return what each says."""
    with started(calls) as processes:
        for process in processes:
            process.go()
        return [process.line() for process in processes]


@contextmanager
def service(latency: float) -> Iterator[str]:
    """Run a fresh service."""
    process = Started("service.py", "--latency", latency)
    try:
        yield f"http://127.0.0.1:{process.line()['port']}"
    finally:
        process.close()


def counted(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/count") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


# -- in the process that is measured -------------------------------------------------------------------------------


def wait_for_word() -> None:
    """Say that all is ready, and wait."""
    print("{}", flush=True)
    sys.stdin.readline()


def say(**found: object) -> None:
    print(json.dumps(found), flush=True)


class Spent:
    """Wall and CPU time of a block."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self.cpu, self.seconds = -own_cpu(), -time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu += own_cpu()


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> float:
    """MiB of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
