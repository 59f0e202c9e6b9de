"""What the tests of your own code need: both services in miniature, time that a test turns, and assertions.

    async def test_an_outage_is_waited_for() -> None:
        sandbox = RecordingSandbox(clock=FakeClock(), inject=["outage:length=67"])
        async with sandbox.documents_session() as session:
            ...
        sandbox.assert_signed()

`RecordingSandbox` is a `Sandbox` that keeps every request with its body and asserts what must hold of them;
`FakeClock` lets hours pass in no time. Neither needs pytest; where it is used, the plugin that comes with the package
offers both as the fixtures `invoicing_sandbox` and `invoicing_clock` (see `plugin`). What goes wrong is said by the
values of `invoicing_async.sandbox`, or by their text forms.

The sandbox draws its PDFs with fpdf2: install the extra `sandbox`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._clock import START, FakeClock
    from ._requests import RecordedRequest
    from ._sandbox import BASE_PATH, RecordingSandbox, SessionOptions

__all__ = ["BASE_PATH", "START", "FakeClock", "RecordedRequest", "RecordingSandbox", "SessionOptions"]

_HOMES = {
    "BASE_PATH": "_sandbox",
    "START": "_clock",
    "FakeClock": "_clock",
    "RecordedRequest": "_requests",
    "RecordingSandbox": "_sandbox",
    "SessionOptions": "_sandbox",
}
"""The module that each name is from."""


if not TYPE_CHECKING:  # a type checker is to know the names above and no others

    def __getattr__(name: str) -> object:
        """Import a name's module when it is first asked for: pytest imports this package in every run."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found
