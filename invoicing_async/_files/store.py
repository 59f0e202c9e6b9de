"""What a place of documents must do, whatever it is: `Store`; and a folder as one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from attrs import frozen

from .existing import READ_SIZE, Published, difference, opened
from .publish import Destination, OnExisting
from .writer import DiskWriter, Spool

__all__ = ["FolderStore", "Found", "Store"]


@frozen(kw_only=True)
class Found:
    """What has a name: `size` in bytes, `modified` in epoch seconds, `sha256` None where only reading it tells."""

    size: int
    modified: float
    sha256: str | None = None


class Store(Protocol):
    """Where whole documents are kept by name. Nothing that has a name is ever replaced, and nothing is removed.

    A name is relative, of safe components with `/` between them (`Layout`). Each method raises `OSError` for trouble
    with the place: `PermissionError` where it refuses the credential. Many processes on many hosts may use one at once.
    """

    @property
    def address(self) -> str:
        """What messages and runs name it by, without a secret; with `/` and a name behind it, that of a document."""

    async def put(self, name: str, body: bytes | Spool, *, sha256: str, size: int) -> Published:
        """Keep a document that was proved whole under this name, all of it or nothing, once it is safe there.

        `size` and `sha256` (in hex) are those of the body; a spool stays the caller's. If a document of that very size
        and hash has the name, that is it, whoever put it: it is returned as `kept` and `same`. Raises `FileExistsError`
        if another has.
        """

    async def find(self, name: str) -> Found | None:
        """Return what has this name; None if nothing has."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield what has this name, piece by piece. Raises `FileNotFoundError` if nothing has."""

    async def compare(self, name: str, *, size: int | None, sha256: str | None) -> str | None:
        """Say in a few words how what has this name differs from what was put there; None if it does not."""

    async def spool(self) -> Spool:
        """Begin a document that is too large for memory; it ends with `put` and `discard`."""

    async def discard(self, spool: Spool) -> None:
        """Discard what was spooled; nothing happens to one that was put."""


class FolderStore:
    """A folder as a `Store`: `put` is what every download into a folder does. `durable` puts wait for the disk.

    Made inside the event loop that uses it, and closed by `close`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, durable: bool = False) -> None:
        self._folder = Path(folder).absolute()
        self._durable = durable
        self._disk = DiskWriter()

    @property
    def address(self) -> str:
        """The absolute path of the folder."""
        return str(self._folder)

    async def put(self, name: str, body: bytes | Spool, *, sha256: str, size: int) -> Published:
        """Keep a document; see `Store.put`. The folders of its name are made."""
        to = Destination(
            target=self._path(name),
            folder=self._folder,
            on_existing=OnExisting.NEW_NAME,
            durable=self._durable,
            one_name=True,
            shared=True,
        )
        return await (self._disk.store(to, body) if isinstance(body, bytes) else body.publish(to))

    async def find(self, name: str) -> Found | None:
        """Return what has this name; its hash is known only by reading it."""
        try:
            status = await self._disk.run(self._path(name).stat)
        except FileNotFoundError:
            return None
        return Found(size=status.st_size, modified=status.st_mtime)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield what has this name, a MiB at a time."""
        with opened(self._path(name)) as descriptor:
            while piece := await self._disk.run(partial(os.read, descriptor, READ_SIZE)):
                yield piece

    async def compare(self, name: str, *, size: int | None, sha256: str | None) -> str | None:
        """Read the file and say how it differs."""
        return await self._disk.run(partial(difference, self._path(name), size=size, digest=sha256))

    async def spool(self) -> Spool:
        """Begin a document in the folder itself."""
        return await self._disk.spool(self._folder)

    async def discard(self, spool: Spool) -> None:
        """Remove the temporary file."""
        await spool.discard()

    async def close(self) -> None:
        """Finish what is queued and end the thread."""
        await self._disk.close()

    def _path(self, name: str) -> Path:
        below = PurePosixPath(name)
        if not name or below.is_absolute() or ".." in below.parts:
            raise ValueError(f"name must be a path below the store, got {name!r}")
        return self._folder / below
