"""How a whole file gets its name, without replacing another's."""

from __future__ import annotations

import errno
import logging
import os
from enum import Enum
from itertools import count
from pathlib import Path

from attrs import Factory, define, evolve, field, frozen

from .existing import MakesValidator, Published, difference, set_aside, whole_document
from .folders import make_folder
from .names import numbered
from .pdf import PdfValidator
from .tempfile import Temp, Unnamed

__all__ = ["Destination", "OnExisting", "Publisher"]

_log = logging.getLogger("invoicing_async")


class OnExisting(Enum):
    """What to do when the name is taken: leave a whole document there, take a free name, or replace it.

    A file of the very content that was to be saved is taken for it, whoever put it there.
    """

    KEEP = "keep"
    NEW_NAME = "new name"
    REPLACE = "replace"


_LINKLESS: set[Path] = set()
"""Folders whose file system has no hard links."""


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


TRIES = 100
"""How often a broken file is set aside before somebody else's bad files are an error."""


@frozen(kw_only=True)
class Destination:
    """Where a document goes: temporary files in `folder`, the final name `target` below it.

    `validator` makes what a file under that name must pass to be kept; None if the name may be another document's.
    With `one_name` no other name is taken: other content under it is a `FileExistsError`. What is `shared` may be found
    by another process as soon as it has its name, and is never taken back.
    """

    target: Path
    folder: Path = field(default=Factory(lambda self: self.target.parent, takes_self=True))
    on_existing: OnExisting = OnExisting.NEW_NAME
    validator: MakesValidator | None = PdfValidator
    durable: bool = False
    one_name: bool = False
    shared: bool = False


@define(eq=False)
class Publisher:
    """Gives one temporary file its final name."""

    temp: Temp
    _destination: Destination
    _aside: Path | None = field(default=None, init=False)
    """Where a broken file of that name was renamed to."""

    def publish(self) -> Published:
        """Publish it, or return the file that is there and is kept instead.

        The name's folder is made if it is missing, and the file copied there if it is on another volume.
        """
        to, is_made, is_copied = self._destination, False, False
        while True:
            try:
                self.temp.flush()
                if to.on_existing is OnExisting.REPLACE:
                    self.temp.replace(to.target)
                    return self.temp.published(to.target)
                if to.on_existing is OnExisting.KEEP and to.validator is not None:
                    return self._in_its_place(to.target, to.validator)
                return self._beside(to.target, keep=to.on_existing is OnExisting.KEEP)
            except FileNotFoundError:
                if self.temp.is_gone:
                    self.temp = self.temp.copied(to.folder)
                    continue
                if is_made:
                    raise
                make_folder(to.target.parent, durable=to.durable)
                is_made = True
            except OSError as exc:
                if is_copied or exc.errno != errno.EXDEV:
                    raise
                self.temp = self.temp.copied(to.target.parent)
                is_copied = True

    def _in_its_place(self, target: Path, validator: MakesValidator) -> Published:
        """Take the one name this document may have; a broken file there is set aside, a whole one is kept."""
        for _ in range(TRIES):
            if self._takes(target):
                return self.temp.published(target, aside=self._aside)
            found = whole_document(target, validator())
            if found is not None:
                is_same = (found.size, found.sha256) == (self.temp.size, self.temp.sha256)
                self.temp.discard()
                return evolve(found, set_aside=self._aside, same=is_same)
            if not os.path.lexists(target):
                continue  # it is gone again
            if os.path.islink(target) and not target.exists():
                raise OSError(errno.EEXIST, "a link to nowhere stands there; move it away", str(target))
            self._aside = set_aside(target, validator) or self._aside
        raise OSError(errno.EEXIST, "broken files keep appearing there", str(target))

    def _beside(self, target: Path, *, keep: bool) -> Published:
        """Take the first name that is free; a file of the very same content before that is the one, or is kept."""
        free = target
        for number in count(2):
            if self._takes(free):
                return evolve(self.temp.published(free), name_taken=free is not target)
            size, digest = self.temp.size, self.temp.sha256
            if difference(free, size=size, digest=digest) is None:
                self.temp.discard()
                return Published(free, size, digest, kept=True, same=not keep, name_taken=free is not target)
            if self._destination.one_name:
                raise FileExistsError(errno.EEXIST, "another document has that name", str(target))
            free = target.with_name(numbered(target.name, number))
        raise AssertionError  # pragma: no cover - count() does not end

    def _takes(self, path: Path) -> bool:
        """Name the file; false if the name is taken. Where there are no hard links the name is claimed first."""
        has_links = path.parent not in _LINKLESS
        try:
            if has_links:
                try:
                    self.temp.link(path)
                except OSError as exc:
                    if exc.errno not in _NO_LINKS:
                        raise
                else:
                    return True
            if isinstance(self.temp, Unnamed):
                self.temp = self.temp.copied(path.parent)
                self.temp.flush()
            self.temp.claim(path)
        except FileExistsError:
            return False
        if has_links:
            _LINKLESS.add(path.parent)
            _log.warning("%s has no hard links: names are claimed there before they are filled", path.parent)
        return True
