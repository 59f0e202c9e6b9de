"""How much of an answer's body is read when it is no success: what an error envelope may need, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .errors import TransportError

__all__ = ["error_body"]

ERROR_BODY_LIMIT = 65_536


async def error_body(chunks: AsyncIterator[bytes], begun: bytes = b"") -> bytes:
    """Read on, up to the limit; how the body ends does not matter then, since the status says enough."""
    body = bytearray(begun)
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) > ERROR_BODY_LIMIT:
                break
    except TransportError:
        pass
    return bytes(body[:ERROR_BODY_LIMIT])
