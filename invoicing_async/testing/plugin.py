"""The pytest plugin: fixtures around `RecordingSandbox` and `FakeClock`, and nothing that costs when they are not used.

None of them is asynchronous, so they work with pytest-asyncio in both modes, with anyio's plugin, and in tests without
a loop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..sandbox import Faults
    from . import FakeClock, RecordingSandbox

__all__ = ["invoicing_clock", "invoicing_environment", "invoicing_faults", "invoicing_sandbox", "invoicing_sandbox_url"]


@pytest.fixture
def invoicing_clock() -> FakeClock:
    """A clock that turns itself to whatever sleeps next; the sandbox of the same test goes by it."""
    from . import FakeClock

    return FakeClock()


@pytest.fixture
def invoicing_faults() -> Faults | None:
    """What befalls certain ids, a `Faults`; None for its defaults. Define it anew to have other ones."""
    return None


@pytest.fixture
def invoicing_sandbox(request: pytest.FixtureRequest, invoicing_faults: Faults | None) -> RecordingSandbox:
    """Both services in miniature; by the machine's clock unless the test has `invoicing_clock` too."""
    from . import RecordingSandbox

    clock = request.getfixturevalue("invoicing_clock") if "invoicing_clock" in request.fixturenames else None
    return RecordingSandbox(faults=invoicing_faults, clock=clock)


@pytest.fixture
def invoicing_sandbox_url(invoicing_sandbox: RecordingSandbox) -> Iterator[str]:
    """The base URL of both services of `invoicing_sandbox`, served on a port from a thread of its own."""
    with invoicing_sandbox.serve_in_thread() as url:
        yield url


@pytest.fixture
def invoicing_environment(
    invoicing_sandbox: RecordingSandbox, invoicing_sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The variables `INVOICING_…` that reach `invoicing_sandbox_url`; they alone are set while the test runs.

    Those of whoever runs it, as a proxy or live credentials, are gone for that time.
    """
    for name in [name for name in os.environ if name.startswith("INVOICING_")]:
        monkeypatch.delenv(name)
    variables = invoicing_sandbox.environment(invoicing_sandbox_url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
