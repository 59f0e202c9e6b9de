"""A fault as a value: when it is in force, whom it hits, and its text form for a command line.

What a kind of fault does to a call is in `_service_faults` (the service is down, small or limits its callers) and
in `_wire_faults` (the answer breaks on its way). `_injection` puts faults in force.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from attrs import NOTHING, Attribute, field, fields, frozen

from .._values.validators import Validator, count, not_negative, optional, positive, share, whole
from ._answers import Reply
from ._shared import Call, Dice, Operation, Shared

__all__ = ["ANY", "FAULT_KINDS", "Fault", "InFlight", "Injection", "Proceed", "SampledFault", "kind_of_fault", "one_of"]

ANY = "any"
"""The `operation` of a fault that hits every call."""

Proceed: TypeAlias = Callable[[], Awaitable[Reply]]
"""Goes on with a call: the next fault in force, and behind the last one the service itself."""

F = TypeVar("F", bound="type[Fault]")


@frozen
class InFlight:
    """One call between its arrival and the end of its answer; `ended` runs what is left to do then.

    `arrived` is in monotonic seconds of the sandbox's clock.
    """

    call: Call
    arrived: float
    ended: ExitStack


class Injection(Protocol):
    """A fault in force, as the fault itself sees it: what it did so far, what it remembers, and the services."""

    counts: Counter[str]
    """How often it did what."""
    memory: Any
    """What `Fault.memory` returned when the fault was put in force."""

    @property
    def shared(self) -> Shared:
        """The settings, the clock and the error envelopes of the services."""


def one_of(*choices: str) -> Validator:
    """Accept one of these words."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value not in choices:
            name = f"{type(instance).__name__}.{attribute.name}"
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")

    return check


@frozen(kw_only=True)
class Fault:
    """One way in which the services misbehave, and when. Seconds are on the sandbox's clock.

    It is in force from `start` seconds after it was injected, for `length` seconds (None: to the end), and again
    `every` so many seconds (None: once). `operation` is the one kind of call that it hits, or "any".

    `Fault.parse` reads the text form, `str()` writes it: the kind, a colon, then `name=value` with commas between; the
    first value may stand without its name. `outage:start=20,length=20`, `capacity:8,queue=8`.
    """

    kind: ClassVar[str] = ""
    """What the text form begins with."""
    example: ClassVar[str] = ""
    """A text form."""

    start: float = field(default=0.0, validator=not_negative)
    length: float | None = field(default=None, validator=optional(positive))
    every: float | None = field(default=None, validator=optional(positive))
    operation: str = field(default=ANY, validator=one_of(ANY, *Operation))

    def __attrs_post_init__(self) -> None:
        if self.every is not None and (self.length is None or self.every <= self.length):
            raise ValueError(f"{type(self).__name__}.every must be longer than length, which must be given too")

    @staticmethod
    def parse(text: str) -> Fault:
        """Read a fault from its text form. Raises `ValueError` that names the field and its limit."""
        kind, _, rest = text.strip().partition(":")
        made = FAULT_KINDS.get(kind)
        if made is None:
            near = get_close_matches(kind, FAULT_KINDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(FAULT_KINDS)}"
            raise ValueError(f"there is no fault {kind!r}; {hint}")
        given = _given(made, rest)
        required = [each.name for each in fields(made) if each.default is NOTHING]
        if missing := [name for name in required if name not in given]:
            raise ValueError(f"{kind}.{missing[0]} must be given, as in {made.example}")
        try:
            return made(**given)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{made.__name__}.", f"{kind}.")) from None

    def __str__(self) -> str:
        parts: list[str] = []
        for each in sorted(fields(type(self)), key=lambda each: bool(each.kw_only)):
            value = getattr(self, each.name)
            if value != each.default:
                parts.append(_text(value) if not each.kw_only and not parts else f"{each.name}={_text(value)}")
        return ":".join([self.kind, ",".join(parts)] if parts else [self.kind])

    def holds(self, age: float) -> bool:
        """Tell whether it is in force so many seconds after it was injected."""
        since = age - self.start
        if self.every is not None and since >= 0:
            since %= self.every
        return since >= 0 and (self.length is None or since < self.length)

    def next_change(self, age: float) -> float | None:
        """Return the seconds until it comes into force or goes out of it; None if it never does."""
        since = age - self.start
        if since < 0:
            return -since
        if self.length is None:
            return None
        if self.every is not None:
            since %= self.every
            return self.length - since if since < self.length else self.every - since
        return self.length - since if since < self.length else None

    def memory(self, shared: Shared) -> Any:
        """Make what the fault remembers while it is in force; nothing by default."""

    def hits(self, injection: Injection, call: Call, age: float) -> bool:
        """Tell whether a call that arrived when it was `age` seconds in force meets it."""
        return self.operation in {ANY, call.operation.value} and self.holds(age)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Answer a call that it hits, with `proceed` for the service's own answer. May raise `TransportError`."""
        return await proceed()


COMMON = frozenset(each.name for each in fields(Fault))
"""The fields that every kind of fault has."""


@frozen(kw_only=True)
class SampledFault(Fault):
    """A fault that hits only some of the calls.

    `share` of them, from 0 to 1, drawn from `seed` and from what is asked for: the same requests are hit at any
    concurrency. `first` limits it to the first so many tries of one request, `times` to so many calls in all.
    """

    share: float = field(default=1.0, validator=share)
    seed: int = field(default=0, validator=whole)
    first: int | None = field(default=None, validator=optional(count))
    times: int | None = field(default=None, validator=optional(count))

    def memory(self, shared: Shared) -> Counter[Any]:
        """Count the tries of each request, and under None the calls that were hit."""
        return Counter()

    def hits(self, injection: Injection, call: Call, age: float) -> bool:
        """Tell whether it hits this try of the request."""
        if not super().hits(injection, call, age):
            return False
        tries: Counter[Any] = injection.memory
        request = (call.path, call.request.query, call.request.body)
        key = Dice(self.seed).digest(self.kind, *request)
        tries[key] += 1
        chosen = (
            (self.first is None or tries[key] <= self.first)
            and (self.times is None or tries[None] < self.times)
            and (self.share >= 1 or Dice(self.seed).chance(key, tries[key]) < self.share)
        )
        tries[None] += chosen
        return chosen


FAULT_KINDS: dict[str, type[Fault]] = {}
"""Every kind of fault by its name, in the order of the documentation."""


def kind_of_fault(made: F) -> F:
    """Enter a class into the table of faults."""
    FAULT_KINDS[made.kind] = made
    return made


def _given(made: type[Fault], text: str) -> dict[str, Any]:
    """Read the fields of a fault from what stands behind its kind."""
    known = {each.name: each for each in sorted(fields(made), key=lambda each: each.name in COMMON)}
    unnamed = next((each.name for each in fields(made) if not each.kw_only), "")
    given: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        left, equals, right = (word.strip() for word in part.partition("="))
        name, value = (left, right) if equals else ("" if given else unnamed, left)
        if name not in known:
            near = get_close_matches(left, known, n=1) if equals else []
            wrong = f"has no field {left!r}" if equals else f"takes name=value, got {part!r}"
            hint = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(known)}"
            raise ValueError(f"{made.kind} {wrong}; {hint}")
        if name in given:
            raise ValueError(f"{made.kind}.{name} is given twice")
        given[name] = _value(f"{made.kind}.{name}", str(known[name].type), value)
    return given


def _value(name: str, wanted: str, text: str) -> object:
    """Read one value by the annotation of its field."""
    if text == "none" and wanted.endswith("None"):
        return None
    if wanted == "str":
        return text
    if wanted == "bool":
        if text not in {"true", "false"}:
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    read, said = (int, "a whole number") if wanted.startswith("int") else (float, "a number")
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"{name} must be {said}, got {text!r}") from None


def _text(value: object) -> str:
    """Write one value so that it is read as the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
