"""What errors carry: the history of a call, and the faults of a draft."""

from __future__ import annotations

from attrs import field, frozen

from .text import bounded

__all__ = ["Attempt", "Fault"]


@frozen(kw_only=True)
class Attempt:
    """One failed attempt of a call.

    `number` counts from 1, `at` is epoch seconds, `elapsed` and `waited` (the backoff that followed, 0 after
    the last attempt) are seconds. `error` is the error's text in one line of 2,000 characters at most; it never
    holds a secret.
    """

    number: int
    at: float
    elapsed: float
    error: str = field(converter=bounded)
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    waited: float = 0.0


@frozen
class Fault:
    """One fault of a draft: `path` as in `lines[0].price`, and what is wrong there with its limit."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
