"""Where a document goes on its way out: a folder, by the session's one writer thread, or a store of objects.

What to do about a name that is taken is decided here for stores, and in `publish` for folders; the rules are the same,
but that nothing in a store is replaced or set aside.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Protocol, TypeAlias

from attrs import frozen

from .addresses import ObjectAddress, where_of
from .existing import MakesValidator, Published, difference, whole_document
from .folders import make_folder
from .names import numbered
from .publish import Destination, OnExisting
from .store import Found, Store
from .tempfile import prepare_folder, probe
from .writer import DiskWriter, Spool

__all__ = ["FolderPlace", "Place", "StorePlace", "Stores", "Where", "place_of"]

Where: TypeAlias = str | PathLike[str] | Store
"""A folder, the address of a store as text, or a store."""

CLOCKS_APART = 120.0
"""Seconds by which the clock of a file server may be behind this machine's."""

_OF_THE_STORE = frozenset({errno.EACCES, errno.ENODEV, errno.ENOTSUP})
"""Troubles with a store that every document would meet."""

PROBE = ".invoicing-probe"
"""A name that no document has, which is asked for to see whether a store answers."""


class Place(Protocol):
    """Where documents are saved. Every method raises `OSError` for trouble with it."""

    @property
    def base(self) -> Path:
        """What all targets lie below: a folder, in a store nothing."""

    @property
    def address(self) -> str:
        """The address of a store, empty for a folder."""

    @property
    def replaces(self) -> bool:
        """Whether a document there can be replaced."""

    def prepare(self, *, durable: bool, shared: bool) -> Awaitable[bool]:
        """Make it ready for many documents, and tell whether nothing was there."""

    def probe(self, error: OSError) -> Awaitable[None]:
        """Raise `OSError` if the next document would meet the trouble of this one, too."""

    def kept(self, target: Path, validator: MakesValidator, since: float | None = None) -> Awaitable[Published | None]:
        """Return the whole document that has a name, unless it is older than `since`, in epoch seconds."""

    def store(self, to: Destination, body: bytes) -> Awaitable[Published]:
        """Publish a whole document that is in memory."""

    def spool(self) -> Awaitable[Spool]:
        """Begin a document that is too large for memory; it ends with `publish` or its own `discard`."""

    def publish(self, to: Destination, spool: Spool) -> Awaitable[Published]:
        """Publish what was spooled and proved whole."""

    def compare(self, target: Path, *, size: int | None, digest: str | None) -> Awaitable[str | None]:
        """Say how a document differs from what was recorded of it; None if it does not."""


@frozen
class FolderPlace:
    """A folder. Its methods hand over to the thread and have no frame of their own where documents pass."""

    base: Path
    _disk: DiskWriter
    address: str = ""
    replaces: bool = True

    async def prepare(self, *, durable: bool, shared: bool) -> bool:
        """Make the folder and sweep it; where it is shared, once a session, whose worker begins many batches there."""
        if shared and self.base in self._disk.prepared:
            await self._disk.run(partial(make_folder, self.base, durable=durable))
            return False
        fresh = await self._disk.run(partial(prepare_folder, self.base, durable=durable))
        if shared:
            self._disk.prepared.add(self.base)
        return fresh

    def probe(self, error: OSError) -> Awaitable[None]:
        """Save a document for a moment."""
        return self._disk.run(partial(probe, self.base))

    def kept(self, target: Path, validator: MakesValidator, since: float | None = None) -> Awaitable[Published | None]:
        """Read the file that has the name."""
        return self._disk.run(lambda: _kept_file(target, validator, since))

    def store(self, to: Destination, body: bytes) -> Awaitable[Published]:
        """Publish it; see `DiskWriter.store`."""
        return self._disk.store(to, body)

    def spool(self) -> Awaitable[Spool]:
        """Begin a temporary file in the folder."""
        return self._disk.spool(self.base)

    def publish(self, to: Destination, spool: Spool) -> Awaitable[Published]:
        """Publish the temporary file itself."""
        return spool.publish(to)

    def compare(self, target: Path, *, size: int | None, digest: str | None) -> Awaitable[str | None]:
        """Read and hash the file."""
        return self._disk.run(partial(difference, target, size=size, digest=digest))


def _kept_file(target: Path, validator: MakesValidator, since: float | None) -> Published | None:
    found = whole_document(target, validator())
    is_older = found is not None and since is not None and target.stat().st_mtime < since - CLOCKS_APART
    return None if is_older else found


@frozen
class StorePlace:
    """A store: what has a name there stays as it is."""

    _store: Store
    base: Path = Path()
    replaces: bool = False

    @property
    def address(self) -> str:
        """The store's own."""
        return self._store.address

    async def prepare(self, *, durable: bool, shared: bool) -> bool:
        """Nothing is made before it is needed, and nothing looked through: a bucket may hold any number of names."""
        return False

    async def probe(self, error: OSError) -> None:
        """Ask the store for a name, unless it refused what every document is saved with."""
        if error.errno in _OF_THE_STORE:
            raise error
        await self._store.find(PROBE)

    async def kept(self, target: Path, validator: MakesValidator, since: float | None = None) -> Published | None:
        """Look the name up. What bears its hash was proved whole when it was put; all else is read."""
        name = target.as_posix()
        found = await self._store.find(name)
        if found is None or (since is not None and found.modified < since - CLOCKS_APART):
            return None
        if found.sha256 is not None:
            return Published(target, found.size, found.sha256, kept=True)
        return await self._read(target, found, validator)

    async def _read(self, target: Path, found: Found, validator: MakesValidator) -> Published | None:
        checker, digest = validator(), sha256()
        async for piece in self._store.read(target.as_posix()):
            checker.feed(piece)
            digest.update(piece)
        fault = checker.fault(content_length=found.size, framed=True)
        return None if fault else Published(target, found.size, digest.hexdigest(), kept=True)

    async def store(self, to: Destination, body: bytes) -> Published:
        """Put it under its name or, where another document has that, as its destination says."""
        return await self._put(to, body, size=len(body), digest=sha256(body).hexdigest())

    def spool(self) -> Awaitable[Spool]:
        """Begin it where the store spools."""
        return self._store.spool()

    async def publish(self, to: Destination, spool: Spool) -> Published:
        """Put what was spooled, and give the spool up."""
        published = await self._put(to, spool, size=spool.size, digest=spool.sha256)
        await self._store.discard(spool)
        return published

    def compare(self, target: Path, *, size: int | None, digest: str | None) -> Awaitable[str | None]:
        """Ask the store; see `Store.compare`."""
        return self._store.compare(target.as_posix(), size=size, sha256=digest)

    async def _put(self, to: Destination, body: bytes | Spool, *, size: int, digest: str) -> Published:
        keep, free = to.on_existing is OnExisting.KEEP, to.target
        for number in count(2):
            try:
                put = await self._store.put(free.as_posix(), body, sha256=digest, size=size)
            except FileExistsError:
                if keep and to.validator is not None and free is to.target:
                    found = await self.kept(free, to.validator)
                    if found is not None:
                        return found
                free = to.target.with_name(numbered(to.target.name, number))
            else:
                # What a served name had before was there before this library asked.
                is_same = put.kept and (not keep or to.validator is not None)
                is_other = free is not to.target
                return Published(free, size, digest, kept=put.kept, same=is_same, name_taken=is_other)
        raise AssertionError  # pragma: no cover - count() does not end


class Stores:
    """The object stores of one session, each opened once. Made inside the event loop, as the writer is."""

    def __init__(self) -> None:
        self._open: dict[ObjectAddress, Store] = {}

    def of(self, address: ObjectAddress) -> Store:
        """Return the store at an address. Raises `ImportError` that names the extra where that is missing."""
        if address not in self._open:
            from .._objects import open_objects

            self._open[address] = open_objects(address)
        return self._open[address]

    async def close(self) -> None:
        """End what spools large documents."""
        for store in self._open.values():
            close: Callable[[], Awaitable[None]] | None = getattr(store, "close", None)
            if close is not None:
                await close()


def place_of(where: Where, disk: DiskWriter, stores: Stores) -> Place:
    """Return the place that is meant, written through these. Raises `ValueError` for an address that is none."""
    if not isinstance(where, (str, PathLike)):
        return StorePlace(where)
    found = where_of(where)
    return FolderPlace(found, disk) if isinstance(found, Path) else StorePlace(stores.of(found))
