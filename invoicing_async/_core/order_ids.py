"""What an order id may be given as: text, a UUID or a whole number, as a database gives it; inside it is text."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator
from typing import TypeAlias
from uuid import UUID

__all__ = ["OrderId", "as_text", "texts"]

OrderId: TypeAlias = str | UUID | int


def as_text(order_id: object, at: int | None = None) -> str:
    """Return an id as its text. Raises `ValueError` for anything that is none, also for a bool.

    `at` is where it stands among several.
    """
    if isinstance(order_id, str):
        # A member of an enum of texts stands for its text.
        return str.__str__(order_id)
    if isinstance(order_id, UUID):
        return str(order_id)
    if isinstance(order_id, int) and not isinstance(order_id, bool):
        return str(int(order_id))
    name = "order_id" if at is None else f"order_ids[{at}]"
    raise ValueError(f"{name} must be text, a UUID or an int, got {type(order_id).__name__}")


def texts(order_ids: Iterable[OrderId] | AsyncIterable[OrderId]) -> Iterable[str] | AsyncIterable[str]:
    """Return several ids as their texts.

    Raises `ValueError` for what is not several ids and, if it is a collection, for the first that is no id. A source
    that can be read only once raises it when it comes to that one.
    """
    if isinstance(order_ids, (str, bytes, bytearray, memoryview)) or not isinstance(
        order_ids, (Iterable, AsyncIterable)
    ):
        raise ValueError(f"order_ids must be several ids, not one {type(order_ids).__name__}")
    if isinstance(order_ids, AsyncIterable):
        return _Texts(order_ids)
    if isinstance(order_ids, Collection):
        kinds = set(map(type, order_ids))
        if kinds <= {str}:
            return order_ids  # nearly every batch
        if not kinds <= {str, UUID, int}:
            for _ in _each(order_ids):
                pass
    return _each(order_ids)


def _each(order_ids: Iterable[OrderId]) -> Iterator[str]:
    for number, order_id in enumerate(order_ids):
        yield order_id if type(order_id) is str else as_text(order_id, number)


class _Texts:
    """The ids of an asynchronous source. No generator: what is thrown in, and closing, must reach the source itself."""

    def __init__(self, order_ids: AsyncIterable[OrderId]) -> None:
        self._order_ids = aiter(order_ids)
        self._number = 0

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        order_id = await anext(self._order_ids)
        self._number += 1
        return order_id if type(order_id) is str else await self._text(order_id)

    async def athrow(self, error: BaseException) -> str:
        """Raise an error at the `yield` where the source stands, if it can, and return what it yields then."""
        throw = getattr(self._order_ids, "athrow", None)
        if throw is None:
            raise error
        order_id = await throw(error)
        self._number += 1
        return await self._text(order_id)

    async def aclose(self) -> None:
        """Close the source, if it can be closed."""
        close = getattr(self._order_ids, "aclose", None)
        if close is not None:
            await close()

    async def _text(self, order_id: OrderId) -> str:
        try:
            return as_text(order_id, self._number - 1)
        except ValueError:
            await self.aclose()
            raise
