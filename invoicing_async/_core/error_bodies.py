"""How much of an answer's body is read when it is no success: what an error envelope may need, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..errors import TransportError

__all__ = ["error_body", "read_into"]

ERROR_BODY_LIMIT = 65_536


async def error_body(chunks: AsyncIterator[bytes], begun: bytes = b"") -> bytes:
    """Read on, up to the limit; how the body ends does not matter then, since the status says enough."""
    body = bytearray(begun)
    await read_into(body, chunks)
    return bytes(body)


async def read_into(body: bytearray, chunks: AsyncIterator[bytes]) -> None:
    """Do as `error_body`, so that what came is there even if the reading is cut short."""
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) > ERROR_BODY_LIMIT:
                break
    except TransportError:
        pass
    del body[ERROR_BODY_LIMIT:]
