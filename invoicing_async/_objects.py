"""The adapter to object stores: the only importer of obstore, whose errors become `OSError` here.

- A name is created by one request that is refused if there is one (`If-None-Match: *`). The body is in memory then,
  whatever it is handed over as, so that the sum of large ones is bounded (`IN_FLIGHT`).
- "Already there" may be said though nothing is (S3 answers 409 while two create one name), or of the very object that
  this put made, when the answer to its first try was lost. So it is always looked up: the same size and hash is it,
  another is somebody else's, and if there is none the put is made again.
- The hash is kept as metadata, and on S3 as a checksum too, by which the service proves the body that came.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256 as new_digest
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ._core.clock import Clock, RealClock
from ._files.addresses import ObjectAddress
from ._files.existing import Published
from ._files.store import Found
from ._files.writer import DiskWriter, Spool

try:
    import obstore
    from obstore import exceptions
    from obstore.store import MemoryStore, from_url
except ImportError as exc:  # pragma: no cover - the tests have it
    raise ImportError("object stores need the extra `objects`: pip install 'invoicing-async[objects]'") from exc

__all__ = ["ByteBudget", "ObjectStore", "open_objects"]

IN_FLIGHT = 256 * 2**20
"""Bytes of large bodies that are in memory at most; one that is larger goes alone."""

DIGEST = "sha256"
"""The key of the metadata that holds the hash; a C# identifier, as Azure wants it."""

PAUSES = (0.05, 0.2, 0.8, 2.0, 5.0)
"""Seconds after which a name that is said to be taken, and is not there, is tried again."""

TIME_LIMIT = "300s"
"""What one request may take unless the environment says it: a large body on a slow line. The package has 30 s."""

_PREFIXES: Mapping[str, str] = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_CLIENT = (
    "allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "root_certificate", "timeout",
    "user_agent",
)  # fmt: skip
"""What the environment may say of the client, as `AWS_PROXY_URL`: given any, the package reads no other itself."""

_TYPES: Mapping[str, str] = {".pdf": "application/pdf", ".xml": "application/xml"}

_NUMBERS: tuple[tuple[type[Exception], int], ...] = (
    (exceptions.PermissionDeniedError, errno.EACCES),
    (exceptions.UnauthenticatedError, errno.EACCES),
    (exceptions.NotSupportedError, errno.ENOTSUP),
    (exceptions.InvalidPathError, errno.EINVAL),
    (FileNotFoundError, errno.ENODEV),
)
_QUERY = re.compile(r"\?\S*")
WORDS = 300
"""Characters of an error of the store that are told."""

_memory: dict[str, MemoryStore] = {}
"""What `memory://` names, for as long as the process lives."""


def open_objects(address: ObjectAddress, *, clock: Clock | None = None) -> ObjectStore:
    """Open the store at an address, by the credentials and settings that the environment holds. Nothing is asked yet.

    Raises `OSError` for settings that cannot be used.
    """
    clock = clock or RealClock()
    if address.scheme == "memory":
        return ObjectStore(address, _memory.setdefault(address.bucket, MemoryStore()), clock)
    said = {name: os.environ.get(_PREFIXES[address.scheme] + name.upper()) for name in _CLIENT}
    client = {"timeout": TIME_LIMIT} | {name: value for name, value in said.items() if value is not None}
    options: dict[str, Any] = {"client_options": client}
    if address.scheme == "s3":
        options["checksum_algorithm"] = "sha256"
    try:
        return ObjectStore(address, from_url(address.root, **options), clock)
    except _FOREIGN as exc:
        raise _translated(exc, address.root) from None


_FOREIGN = (exceptions.BaseError, FileNotFoundError)
"""What obstore raises."""


def _translated(exc: Exception, what: str) -> OSError:
    """Say an error of the store in our words, without what it was: the query of an address may hold a token."""
    number = next((number for kind, number in _NUMBERS if isinstance(exc, kind)), errno.EIO)
    said = _QUERY.sub("?…", str(exc).partition("\n")[0])[:WORDS]
    return OSError(number, f"the store: {said}", what)


class ByteBudget:
    """So many bytes at once; whoever wants more than are left waits in turn. More than all is all."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Hold this many while the block runs."""
        size = min(size, self._limit)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)  # it was its turn just now
            else:
                self._waiting.remove((size, turn))
                self._give(0)
            raise

    def _give(self, size: int) -> None:
        self._left += size
        while self._waiting and self._waiting[0][0] <= self._left:
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= wanted
                turn.set_result(None)


@frozen
class ObjectStore:
    """A prefix of a bucket as a `Store`."""

    _at: ObjectAddress
    _store: Any
    _clock: Clock
    _budget: ByteBudget = field(factory=lambda: ByteBudget(IN_FLIGHT))
    _disk: DiskWriter = field(factory=DiskWriter)

    @property
    def address(self) -> str:
        """The address of the prefix."""
        return str(self._at)

    async def put(self, name: str, body: bytes | Spool, *, sha256: str, size: int) -> Published:
        """Create the object, or find that it is there; see `Store.put`."""
        if isinstance(body, bytes):
            return await self._created(name, body, sha256)
        async with self._budget.held(size):
            return await self._created(name, await body.content(), sha256)

    async def _created(self, name: str, body: bytes, digest: str) -> Published:
        key, path, size = self._key(name), Path(name), len(body)
        attributes = {DIGEST: digest, "Content-Type": _TYPES.get(path.suffix, "application/octet-stream")}
        for pause in (*PAUSES, None):
            try:
                await obstore.put_async(self._store, key, body, mode="create", attributes=attributes)
            except exceptions.AlreadyExistsError:
                if (found := await self.find(name)) is not None:
                    if (fault := await self._difference(name, found, size, digest)) is None:
                        return Published(path, size, digest, kept=True, same=True)
                    text = f"another object has that name: it {fault}"
                    raise FileExistsError(errno.EEXIST, text, self._named(name)) from None
                if pause is not None:
                    await self._clock.sleep(pause)
            except _FOREIGN as exc:
                raise _translated(exc, self._named(name)) from None
            else:
                return Published(path, size, digest)
        raise OSError(errno.EIO, "the store says that the name is taken, and has nothing there", self._named(name))

    async def find(self, name: str) -> Found | None:
        """Ask for the head of the object."""
        try:
            got = await obstore.get_async(self._store, self._key(name), options={"head": True})
        except FileNotFoundError:
            return None
        except _FOREIGN as exc:
            raise _translated(exc, self._named(name)) from None
        meta = got.meta
        return Found(size=meta["size"], modified=meta["last_modified"].timestamp(), sha256=got.attributes.get(DIGEST))

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield the object's body as it comes."""
        try:
            got = await obstore.get_async(self._store, self._key(name))
            async for piece in got:
                yield bytes(piece)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", self._named(name)) from None
        except _FOREIGN as exc:
            raise _translated(exc, self._named(name)) from None

    async def compare(self, name: str, *, size: int | None, sha256: str | None) -> str | None:
        """Compare size and recorded hash; an object without that is read."""
        found = await self.find(name)
        return "cannot be read: there is none" if found is None else await self._difference(name, found, size, sha256)

    async def _difference(self, name: str, found: Found, size: int | None, digest: str | None) -> str | None:
        if found.size != size:
            return f"has {found.size:,} bytes where {size or 0:,} were saved"
        kept = found.sha256
        if kept is None:
            read = new_digest()
            async for piece in self.read(name):
                read.update(piece)
            kept = read.hexdigest()
        return None if kept == digest else "has other content than was saved"

    async def spool(self) -> Spool:
        """Begin a temporary file in the system's folder for them."""
        return await self._disk.spool(Path(tempfile.gettempdir()))

    async def discard(self, spool: Spool) -> None:
        """Remove the temporary file."""
        await spool.discard()

    async def close(self) -> None:
        """End the thread that spools."""
        await self._disk.close()

    def _key(self, name: str) -> str:
        return f"{self._at.prefix}/{name}" if self._at.prefix else name

    def _named(self, name: str) -> str:
        return f"{self.address}/{name}"
