"""Secrets that sing: made-up credentials that are looked for, in every form they may take, where none must be."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import asdict

from invoicing_async.errors import InvoicingError

CANARIES = {
    "secret key": "canary0key0of0the0signature",
    "store token": "canary0store0token0of0a0shop",
    "client secret": "canary0client0secret0of0oauth",
    "bearer token": "canary0bearer0token0of0nobody",
    "access token": "canary0access0token0as0issued",
    "proxy password": "canary0proxy0password0of0us",
    "provided secret": "canary0provided0by0a0vault",
    "wrong secret": "canary0wrong0key0meets0a0401",
}


def forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, backwards, in hex, and within base64, wherever it begins there."""
    text = secret.encode()
    yield from (text, text[::-1], text.hex().encode())
    for before in range(3):
        # The outer characters of base64 depend on what stands beside.
        yield b64encode(b"x" * before + text)[4:-4]


FORMS = {name: tuple(forms(secret)) for name, secret in CANARIES.items()}


def found(text: str | bytes) -> list[str]:
    """Name the canaries that a text holds."""
    data = text if isinstance(text, bytes) else text.encode(errors="backslashreplace")
    return [name for name, looks in FORMS.items() if any(look in data for look in looks)]


class Places:
    """What was seen in each place where no secret must be."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}

    def look(self, place: str, text: str | bytes) -> None:
        """Look for canaries; that there was something to look at counts too."""
        self.sizes[place] = self.sizes.get(place, 0) + len(text)
        names = self.seen.setdefault(place, [])
        names.extend(name for name in found(text) if name not in names)

    def look_at_error(self, error: BaseException) -> None:
        """Look at all that a tool may show of an error: words, attributes, causes, and the locals of every frame."""
        self.look("errors", f"{error!r} {error} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')!r}")
        if isinstance(error, InvoicingError):
            self.look("errors", pickle.dumps(error))
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.look("tracebacks", "".join(shown.format()))
        waiting, met = [error], set[int]()
        while waiting:
            link = waiting.pop()
            if id(link) not in met:
                met.add(id(link))
                waiting += [behind for behind in (link.__cause__, link.__context__) if behind is not None]
                for frame, _ in traceback.walk_tb(link.__traceback__):
                    self.look("tracebacks", repr(frame.f_locals))

    def look_at_event(self, event: Any) -> None:
        self.look("events", f"{event!r} {event} {asdict(event, recurse=False)!r}")
        self.look("events", pickle.dumps(event))

    def look_at_objects(self, besides: Iterable[Any] = ()) -> None:
        """Look at the repr and the text of everything of the package that is alive: sessions, calls, connections."""
        for thing in [*gc.get_objects(), *besides]:
            module = str(getattr(type(thing), "__module__", ""))
            if module.startswith("invoicing_async.") and not module.startswith("invoicing_async.sandbox"):
                with suppress(AttributeError):  # of one that is half made
                    self.look("reprs", f"{thing!r} {thing}" if not isinstance(thing, str) else repr(thing))

    def look_at_files(self, place: str, files: Iterable[Path]) -> None:
        for file in files:
            self.look(place, file.name)
            self.look(place, file.read_bytes())


class Listening(logging.Handler):
    """Takes all that any logger says, at any level, with what stands beside the line."""

    def __init__(self, places: Places) -> None:
        super().__init__(1)
        self.places = places
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        beside = {name: value for name, value in vars(record).items() if name != "exc_info"}
        self.places.look("logs", self.format(record) + repr(beside) + json.dumps(beside, default=str))
        if record.exc_info and record.exc_info[1] is not None:
            self.places.look_at_error(record.exc_info[1])


def commandline(pid: int) -> bytes:
    """What everybody on this machine sees of a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def summary(places: Places) -> Mapping[str, Any]:
    return {"seen": places.seen, "sizes": places.sizes}
