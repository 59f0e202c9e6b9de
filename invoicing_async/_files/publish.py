"""How a whole file gets its name: never over another's, never half."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from enum import Enum
from itertools import count
from pathlib import Path

from attrs import evolve

from .existing import MakesProof, Published, difference, set_aside, whole_document
from .folders import make_folder
from .names import numbered
from .tempfile import Temp, Unnamed

__all__ = ["OnExisting", "Publisher", "published"]

_log = logging.getLogger("invoicing_async")


class OnExisting(Enum):
    """What to do when the name is taken: leave a whole document there, take a free name, or replace it."""

    KEEP = "keep"
    NEW_NAME = "new name"
    REPLACE = "replace"


_LINKLESS: set[Path] = set()
"""Folders whose file system has no hard links."""


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


TRIES = 100
"""How often a broken file is set aside before somebody else's bad files are an error."""


class Publisher:
    """Gives one temporary file its final name."""

    def __init__(self, temp: Temp, target: Path, on_existing: OnExisting, proof: MakesProof | None) -> None:
        self.temp = temp
        self._target = target
        self._on_existing = on_existing
        self._proof = proof

    def publish(self) -> Published:
        """Publish it, or give what stands there and is kept instead."""
        self.temp.flush()
        if self._on_existing is OnExisting.REPLACE:
            self._step(self._replaced, self._target)
            return self.temp.published(self._target)
        if self._on_existing is OnExisting.KEEP:
            return self._in_its_place() if self._proof is not None else self._beside(self._same)
        return self._beside(lambda _: None)

    def _in_its_place(self) -> Published:
        """Take the one name this document may have; a broken file there is set aside, a whole one is kept."""
        assert self._proof is not None  # noqa: S101 - for the type checker
        aside: Path | None = None
        for _ in range(TRIES):
            if self._step(self._named, self._target):
                return self.temp.published(self._target, aside=aside)
            found = whole_document(self._target, self._proof())
            if found is not None:
                self.temp.discard()
                return evolve(found, set_aside=aside)
            if not os.path.lexists(self._target):
                continue  # it is gone again
            if os.path.islink(self._target) and not self._target.exists():
                raise OSError(errno.EEXIST, "a link to nowhere stands there; move it away", str(self._target))
            aside = set_aside(self._target, self._proof) or aside
        raise OSError(errno.EEXIST, "broken files keep appearing there", str(self._target))

    def _beside(self, keeps: Callable[[Path], Published | None]) -> Published:
        """Take the first name that is free, unless what stands under one before that is to be kept."""
        free = self._target
        for number in count(2):
            if self._step(self._named, free):
                return self.temp.published(free)
            kept = keeps(free)
            if kept is not None:
                self.temp.discard()
                return kept
            free = self._target.with_name(numbered(self._target.name, number))
        raise AssertionError  # pragma: no cover - count() does not end

    def _same(self, path: Path) -> Published | None:
        """Return a file there if it has the very same content."""
        same = difference(path, size=self.temp.size, digest=self.temp.sha256) is None
        return Published(path, self.temp.size, self.temp.sha256, kept=True) if same else None

    def _step(self, step: Callable[[Path], bool], path: Path) -> bool:
        """Do what needs the temporary file to be on the name's own volume; if it is on another, bring it there."""
        try:
            return step(path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
        self.temp = self.temp.copied(path.parent)
        self.temp.flush()
        return step(path)

    def _replaced(self, path: Path) -> bool:
        self.temp.replace(path)
        return True

    def _named(self, path: Path) -> bool:
        """Return the file this name; false if it is taken."""
        try:
            if path.parent in _LINKLESS:
                self._claimed(path)
            else:
                self._linked(path)
        except FileExistsError:
            return False
        return True

    def _linked(self, path: Path) -> None:
        try:
            self.temp.link(path)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            self._claimed(path)
            _LINKLESS.add(path.parent)
            _log.warning("%s has no hard links: names are claimed there before they are filled", path.parent)

    def _claimed(self, path: Path) -> None:
        if isinstance(self.temp, Unnamed):
            self.temp = self.temp.copied(path.parent)
            self.temp.flush()
        self.temp.claim(path)


def published(publisher: Publisher, folder: Path, *, durable: bool) -> Published:
    try:
        return publisher.publish()
    except FileNotFoundError:
        make_folder(folder, durable=durable)
        return publisher.publish()
