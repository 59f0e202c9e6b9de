"""The README's section "Test your code": its examples are run as test files of a user, its texts are what there is."""

from __future__ import annotations

import re
import unittest

import pytest
from places import README
from readme_blocks import example

from invoicing_async.sandbox import Fault
from invoicing_async.testing import FakeClock, RecordingSandbox, plugin

SECTION = README.read_text().partition("\n## Test your code\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.mark.asyncio
async def test_the_example_with_fixtures_passes(
    invoicing_sandbox: RecordingSandbox, invoicing_clock: FakeClock
) -> None:
    await example("test_an_outage_is_waited_for")(invoicing_sandbox, invoicing_clock)


def test_the_example_without_pytest_passes() -> None:
    module: dict[str, type[unittest.TestCase]] = {}
    exec(compile(BLOCKS[1], "README.md", "exec", dont_inherit=True), module)
    result = unittest.defaultTestLoader.loadTestsFromTestCase(module["TestSubmission"]).run(unittest.TestResult())
    assert (result.testsRun, result.failures, result.errors) == (1, [], [])


@pytest.mark.process
def test_both_pass_as_files_of_a_user(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the plugin and pytest-asyncio, and nothing else."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_fixtures=BLOCKS[0], test_unittest=BLOCKS[1])
    plugins = [
        "-p",
        plugin.__name__,
        "-p",
        "pytest_asyncio.plugin",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    ]
    pytester.runpytest_subprocess(*plugins, "-W", "error").assert_outcomes(passed=2)


def test_every_fixture_is_in_the_table() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE)) == sorted(plugin.__all__)


def test_every_fault_that_it_names_is_one() -> None:
    (line,) = re.findall(r"^- \*\*Faults\*\*.*?(?=^- )", SECTION, re.MULTILINE | re.DOTALL)
    texts = [text for text in re.findall(r"`([^`]+)`", line) if not text.startswith(("invoicing_async", "sandbox."))]
    assert len([Fault.parse(text) for text in texts]) == 11


def test_every_name_of_the_sandbox_that_it_uses_is_there() -> None:
    sandbox = RecordingSandbox()
    used = set(re.findall(r"sandbox\.(\w+)|`\.?(\w+)\(\)`", SECTION))
    names = {name for pair in used for name in pair if name} - {"test"}
    assert [name for name in sorted(names) if not hasattr(sandbox, name)] == []
