"""Real processes that need not import anything: each is forked from one that has done so.

They have a number, streams, an environment and a folder of their own, are signalled and killed like any other, and
cost some milliseconds where a new interpreter costs a second of a processor's time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import TextIOWrapper
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from typing import IO, Any, Self

from invoicing_async.__main__ import main

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        *("aiohttp", "cyclopts", "pytest", "rich.console", "uvloop"),
        *(f"invoicing_async.{name}" for name in ("_transport.client", "documents", "invoices", "runs")),
        "invoicing_async.cli.app",
        *(f"invoicing_async.cli.commands.{name}" for name in ("demo", "documents", "invoices", "repair", "runs")),
    ]
)


class _Handed:
    """A descriptor for the new process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _received, (DupFd(self.number),)


def _received(handed: Any) -> int:
    number: int = handed.detach()
    return number


class Forked:
    """A started process, with those parts of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        work: Callable[..., None],
        *arguments: object,
        stdin: int | None = None,
        ignored: Iterable[signal.Signals] = (),
    ) -> None:
        """Let a process do this work. It begins with this one's environment and folder, and ignores these signals.

        What it is given on stdin ends with `communicate`, unless that is a descriptor of the caller's.
        """
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        given, self._given = os.pipe()
        numbers = (given if stdin is None else stdin, self.out.fileno(), self.err.fileno())
        streams = tuple(map(_Handed, numbers))
        words = (dict(os.environ), os.getcwd(), streams, tuple(ignored), work, arguments)  # noqa: PTH109 - as it is
        process = _FORKING.Process(target=_begin, args=words)
        process.start()
        os.close(given)
        self._told = 0
        self._process: ForkServerProcess = process
        assert process.pid is not None
        self.pid: int = process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it, if it has ended."""
        self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            # It may have ended a moment ago, which whoever forked it has not told yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"the process did not end within {timeout} s"
        return code

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """End what it is given, wait for its end and return what was written to stdout and stderr."""
        self._give_no_more()
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[bytes, bytes]:
        """Return what was written to stdout and stderr so far."""
        return _content(self.out), _content(self.err)

    def line(self, timeout: float = 30) -> str:
        """Wait for the next line on stdout; it is empty if there will be none."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            ended = self.poll() is not None
            text = os.pread(self.out.fileno(), 4096, self._told)
            if (end := text.find(b"\n") + 1) > 0:
                self._told += end
                return text[:end].decode()
            if ended:
                return ""
            time.sleep(0.002)
        raise AssertionError(f"no line came within {timeout} s")

    def _give_no_more(self) -> None:
        if self._given >= 0:
            os.close(self._given)
            self._given = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_no_more()
        self.kill()
        self.wait()
        self._process.close()
        self.out.close()
        self.err.close()


def _content(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _begin(
    environment: dict[str, str],
    folder: str,
    streams: tuple[int, int, int],
    ignored: tuple[signal.Signals, ...],
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, handed in enumerate(streams):
        os.dup2(handed, number)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if encoding := environment.get("PYTHONIOENCODING"):
        _write_in(encoding)
    work(*arguments)


def _write_in(encoding: str) -> None:
    """Write as an interpreter does that began with this PYTHONIOENCODING."""
    name, _, errors = encoding.partition(":")
    for stream, handling in ((sys.stdout, errors or "strict"), (sys.stderr, "backslashreplace")):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(encoding=name, errors=handling)


def _run(code: str, arguments: tuple[str, ...]) -> None:
    sys.argv = ["-c", *arguments]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as an interpreter has it
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    exec(compile(code, "-c", "exec", dont_inherit=True), {"__name__": "__main__"})


def python(code: str, *arguments: object) -> Forked:
    """Run Python's `-c` as a process of its own."""
    return Forked(_run, code, tuple(map(str, arguments)))


def _command(tokens: tuple[str, ...]) -> None:
    sys.argv = ["invoicing-async", *tokens]
    main()


def forked(*tokens: object, stdin: int | None = None, ignored: Iterable[signal.Signals] = ()) -> Forked:
    """Run a command as a process of its own."""
    return Forked(_command, tuple(map(str, tokens)), stdin=stdin, ignored=ignored)
