"""The pytest plugin in runs of its own: with every way to run asynchronous tests, with none, and unused."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from places import ROOT, TESTS

from invoicing_async.testing import RecordingSandbox, plugin

PLUGIN = "invoicing_async.testing.plugin"
EXAMPLES = TESTS / "example_service"
LOADED = RecordingSandbox
"""Loaded here, since a run within this process forgets what it loads, and then there would be two of each class."""

BODY = """
import os

import pytest

from invoicing_async import OrderDocuments, RetryPolicy, Session
from invoicing_async.sandbox import demo_orders
from invoicing_async.settings import Settings


async def pdf(session):
    async with session, OrderDocuments(session).open(demo_orders(1)[0]) as document:
        return b"".join([chunk async for chunk in document.chunks])


MARK
async def test_in_process(invoicing_sandbox, invoicing_clock):
    invoicing_sandbox.inject("outage:length=67")
    session = invoicing_sandbox.documents_session(retry=RetryPolicy(attempts=10, first=1.0))
    assert (await pdf(session))[:5] == b"%PDF-"
    assert invoicing_clock is invoicing_sandbox.clock
    assert invoicing_clock.elapsed > 67
    invoicing_sandbox.assert_signed()


MARK
async def test_on_a_port(invoicing_sandbox_url, invoicing_sandbox):
    session = Session(invoicing_sandbox_url, auth=invoicing_sandbox.documents_auth)
    assert (await pdf(session))[:5] == b"%PDF-"


MARK
async def test_by_the_environment(invoicing_environment, invoicing_sandbox):
    assert os.environ["INVOICING_DOCUMENTS_BASE_URL"] == invoicing_environment["INVOICING_DOCUMENTS_BASE_URL"]
    assert (await pdf(Settings.load().documents()))[:5] == b"%PDF-"
    assert len(invoicing_sandbox.requests) == 1


def test_without_a_loop(invoicing_sandbox_url, invoicing_sandbox):
    with pytest.raises(AssertionError, match="no request"):
        invoicing_sandbox.assert_signed()
    assert "INVOICING_DOCUMENTS_BASE_URL" not in os.environ
"""
ANYIO = """
import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.fixture(autouse=True)
def only_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the plugins that happen to be installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def in_process(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run tests that load no more of the library than is `LOADED`."""
    return pytester.runpytest_inprocess("-p", PLUGIN, "-W", "error", *options)


@pytest.mark.process
@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("@pytest.mark.asyncio", ["-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=strict"]),
        ("", ["-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto"]),
        ("@pytest.mark.anyio", ["-p", "anyio.pytest_plugin"]),
        ("@pytest.mark.asyncio", ["-p", "anyio.pytest_plugin", "-p", "pytest_asyncio.plugin"]),
    ],
    ids=["asyncio-strict", "asyncio-auto", "anyio", "both"],
)
def test_the_fixtures_work_in_every_way_to_run(pytester: pytest.Pytester, mark: str, options: list[str]) -> None:
    pytester.makeconftest(ANYIO if "anyio" in mark else "")
    pytester.makepyfile(BODY.replace("MARK", mark))
    defaults = ["-o", "asyncio_default_fixture_loop_scope=function"] if "pytest_asyncio.plugin" in options else []
    pytester.runpytest_subprocess("-p", PLUGIN, "-W", "error", *options, *defaults).assert_outcomes(passed=4)


def test_the_environment_of_who_runs_it_has_no_part(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy, a file of live credentials, a token: they are gone for the test, and there again after it."""
    mine = {"PROXY": "http://127.0.0.1:9", "ENV_FILE": "/nowhere", "INVOICES_TOKEN": "live", "DEBUG": "1"}
    for name, value in mine.items():
        monkeypatch.setenv(f"INVOICING_{name}", value)
    pytester.makepyfile("""
        import os

        def test_it(invoicing_environment):
            assert {n: v for n, v in os.environ.items() if n.startswith("INVOICING_")} == invoicing_environment

        def test_afterwards():
            assert os.environ["INVOICING_INVOICES_TOKEN"] == "live"
    """)
    in_process(pytester).assert_outcomes(passed=2)


@pytest.mark.process
def test_unittest_needs_no_fixture(pytester: pytest.Pytester) -> None:
    """Nor the plugin."""
    pytester.makepyfile("""
        from unittest import IsolatedAsyncioTestCase

        from invoicing_async import OrderDocuments, RetryPolicy
        from invoicing_async.sandbox import demo_orders
        from invoicing_async.testing import FakeClock, RecordingSandbox

        class TestDocuments(IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.sandbox = RecordingSandbox(clock=FakeClock(), inject=["outage:length=67"])
                options = {"retry": RetryPolicy(attempts=10, first=1.0)}
                self.session = await self.enterAsyncContext(self.sandbox.documents_session(**options))

            async def test_an_outage_is_waited_for(self):
                async with OrderDocuments(self.session).open(demo_orders(1)[0]) as document:
                    self.assertEqual(document.filename[-4:], ".pdf")
                self.sandbox.assert_signed()

            def test_on_a_port(self):
                url = self.enterContext(self.sandbox.serve_in_thread())
                self.assertTrue(url.startswith("http://127.0.0.1:"))
    """)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_faults_are_defined_anew(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from invoicing_async.clock import RealClock
        from invoicing_async.sandbox import Faults

        @pytest.fixture
        def invoicing_faults():
            return Faults(failed_share=1.0)

        def test_they_are_in_force(invoicing_sandbox):
            assert invoicing_sandbox.faults == Faults(failed_share=1.0)
            assert isinstance(invoicing_sandbox.clock, RealClock)

        def test_one_s_own_text_too(invoicing_sandbox):
            invoicing_sandbox.inject("lost:first=1")
            with pytest.raises(ValueError, match="did you mean lost"):
                invoicing_sandbox.inject("loss")
    """)
    in_process(pytester).assert_outcomes(passed=2)


def test_a_failed_assertion_fails_the_test_and_says_why(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_nothing_was_asked_for(invoicing_sandbox):
            invoicing_sandbox.assert_signed()
    """)
    result = in_process(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *AssertionError: nothing was asked for: no request reached the sandbox"])


def test_without_fpdf2_the_error_names_the_extra(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fpdf", None)
    pytester.makepyfile("def test_it(invoicing_sandbox): pass")
    result = in_process(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([r"E *ImportError: *install invoicing-async[[]sandbox[]]"])


def test_every_fixture_is_listed_with_what_it_is(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows a line of each, and none has a name that others may have."""
    shown = in_process(pytester, "--fixtures").stdout.str()
    assert all(f"\n{name} --" in shown for name in plugin.__all__)
    assert all(name.startswith("invoicing_") for name in plugin.__all__)
    assert "no docstring available" not in shown.partition(f"from {PLUGIN}")[2].partition("fixtures defined")[0]


def test_the_entry_point_is_the_plugin() -> None:
    """Its name is the module's, so that it is one plugin with whoever names that by `-p`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"pytest11": {PLUGIN: PLUGIN}}


def test_unused_it_loads_nothing() -> None:
    """Neither the library, beyond the names of two packages, nor a package of others, nor asyncio."""
    code = f"import pytest, sys; before = {{*sys.modules}}; import {PLUGIN}; print(*sorted({{*sys.modules}} - before))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in told if not name.startswith("importlib")] == [
        "invoicing_async",
        "invoicing_async.testing",
        PLUGIN,
    ]


@pytest.mark.process
def test_the_example_suite_runs_where_only_its_own_plugins_are(tmp_path: Path) -> None:
    """As in the project of a user: a folder of its own, a process of its own, no fixture of ours but the plugin's."""
    for file in EXAMPLES.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    plugins = ["-p", PLUGIN, "-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-c", "/dev/null", *plugins, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, "8 passed" in done.stdout) == (0, True), done.stdout
