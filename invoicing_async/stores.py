"""Where documents may be kept beside a folder: object stores by their address, and whatever is a `Store`.

Every `folder` and `to` of this library takes a folder's path, the address of an object store as text
(`s3://bucket/prefix`, `gs://…`, `az://container/prefix`, with the extra `objects`) or, but for durable runs, a `Store`.
Credentials are those of the environment, as the package obstore takes them; they are never in an address.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

from ._files.addresses import where_of
from ._files.existing import Published
from ._files.places import Where
from ._files.store import FolderStore, Found, Store
from ._files.tempfile import sweep, temp_workers
from ._files.writer import DiskWriter, Spool

__all__ = [
    "DeadWorkers",
    "FolderStore",
    "Found",
    "Published",
    "Spool",
    "Store",
    "Where",
    "checked_place",
    "sweep_folder",
]

DeadWorkers = Callable[[frozenset[str]], Awaitable[Collection[str]]]
"""Asked for some workers, by what temporary files bear of them; says which of them are known to be dead for an hour."""


def checked_place(where: str | os.PathLike[str]) -> Path | str:
    """Return where documents are to be saved: the path of a folder, or the address of an object store as text.

    Nothing is asked. Raises `ValueError` for an address that is none or holds what may be a secret, and `ImportError`
    that names the extra where that is missing.
    """
    found = where_of(where)
    if isinstance(found, Path):
        return found
    from . import _objects  # noqa: F401 - to find that it can be had, before anything is begun

    return str(found)


async def sweep_folder(folder: str | os.PathLike[str], dead: DeadWorkers | None = None) -> int:
    """Remove what dead processes left unfinished in a folder and return how many files that were.

    Those are temporary files of this host whose process is gone, and of other hosts those of workers that `dead` says
    are dead. Whatever else is there stays. Raises `OSError` for a folder that cannot be read.
    """
    disk, where = DiskWriter(), Path(folder)
    try:
        workers = await disk.run(partial(temp_workers, where)) if dead is not None else frozenset[str]()
        gone = frozenset(await dead(workers)) & workers if dead is not None and workers else frozenset[str]()
        return await disk.run(partial(sweep, where, gone))
    finally:
        await disk.close()
