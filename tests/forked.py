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
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from typing import IO, Any, Self

from invoicing_async.__main__ import main

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "aiohttp",
        "cyclopts",
        "pytest",
        "rich.console",
        "uvloop",
        "invoicing_async.cli.app",
        *(f"invoicing_async.cli.{name}" for name in ("documents", "invoices", "runs")),
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
        """Let a process do this work. It begins with this one's environment and folder, and ignores these signals."""
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        streams = {1: _Handed(self.out.fileno()), 2: _Handed(self.err.fileno())}
        if stdin is not None:
            streams[0] = _Handed(stdin)
        words = (dict(os.environ), os.getcwd(), streams, tuple(ignored), work, arguments)  # noqa: PTH109 - as it is
        process = _FORKING.Process(target=_begin, args=words)
        process.start()
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
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"the process did not end within {timeout} s"
        return code

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Wait for the end and return what was written to stdout and stderr."""
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[bytes, bytes]:
        """Return what was written to stdout and stderr so far."""
        return _content(self.out), _content(self.err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
    streams: dict[int, int],
    ignored: tuple[signal.Signals, ...],
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, handed in streams.items():
        os.dup2(handed, number)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    work(*arguments)


def _command(tokens: tuple[str, ...]) -> None:
    sys.argv = ["invoicing-async", *tokens]
    main()


def forked(*tokens: object, stdin: int | None = None, ignored: Iterable[signal.Signals] = ()) -> Forked:
    """Run a command as a process of its own."""
    return Forked(_command, tuple(map(str, tokens)), stdin=stdin, ignored=ignored)
