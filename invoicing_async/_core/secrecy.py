"""What keeps secrets out of tracebacks, whose locals some tools show: a text that hides itself, and frames left out.

A frame of this library holds a secret only as `Hidden`. One of the packages beneath holds the request's head as bytes,
and a proxy's URL with its password: an error keeps its words and this library's frames, and loses theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Hidden", "hidden", "quiet", "trim"]

C = TypeVar("C")

BENEATH = frozenset({"aiohttp", "aiohappyeyeballs", "multidict", "yarl"})
"""The packages of the network: their locals, and of what they call, are not ours to keep clean."""

BETWEEN = frozenset({"asyncio", "ssl", "uvloop"})
"""What stands between frames of ours."""


class Hidden(str):
    """A secret text that is used as any other and shown as nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hidden(value: str | None) -> Any:
    """Hide a text; return anything else as it is, for the validator to refuse.

    The annotation names built-in types only: attrs puts it on `__init__`, where whoever reads it has no other names.
    """
    return Hidden(value) if type(value) is str else value


def quiet(cls: type[C]) -> type[C]:
    """Let a class refuse its arguments without keeping them in the locals of the error's frames."""
    made: Callable[..., None] = cls.__init__

    @wraps(made)
    def __init__(self: C, *args: Any, **named: Any) -> None:  # noqa: N807 - it takes the place of one
        try:
            made(self, *args, **named)
        except (TypeError, ValueError) as exc:
            kind, text = TypeError if isinstance(exc, TypeError) else ValueError, str(exc)
        else:
            return
        # Half made, it may have no repr, or one that shows what was refused.
        del self, args, named
        raise kind(text)

    cls.__init__ = __init__  # type: ignore[assignment] # the same, but for what its errors hold
    return cls


def trim(error: BaseException, handled: BaseException | None, *, through: bool = False) -> None:
    """Take the frames of the packages beneath out of an error and of all that it comes from.

    An error of theirs keeps none: it begins where bytes of the wire are held. `handled` is what was being handled when
    the work began that failed (`sys.exception()`): it and what is behind it are somebody else's, and stay as they are.
    `through` keeps the frames of what theirs called, such as a hook of the user's own.
    """
    met = {id(handled)}
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in met:
            continue
        met.add(id(link))
        waiting += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        link.__traceback__ = (
            None if _package(type(link).__module__) in BENEATH else _ours(link.__traceback__, through=through)
        )


def _ours(trace: TracebackType | None, *, through: bool) -> TracebackType | None:
    """Return a traceback without the frames of others."""
    kept = []
    while trace is not None:
        package = _package(str(trace.tb_frame.f_globals.get("__name__", "")))
        if package in BENEATH and not through:
            break
        if package not in BENEATH | BETWEEN:
            kept.append(trace)
        trace = trace.tb_next
    inner = None
    for entry in reversed(kept):
        entry.tb_next = inner
        inner = entry
    return inner


def _package(module: str) -> str:
    return module.partition(".")[0]
