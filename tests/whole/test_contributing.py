"""What the guide for contributors and the hooks tell one to run is there, and so is what the pages beside it name."""

from __future__ import annotations

import re
import shlex
from itertools import chain

import pytest
from places import ROOT

from invoicing_async import VERSION

GUIDE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()
TOOLS = {"python", "pre-commit", "ruff", "mypy"}
"""What `.venv/bin` holds after the guide's first command."""


def commands() -> list[str]:
    """Every command of the guide and of the hooks, those of one line apart."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    lines = chain.from_iterable(block.splitlines() for block in blocks)
    return [*chain.from_iterable(line.split(" && ") for line in lines), *re.findall(r"entry: (.*)", HOOKS)]


@pytest.mark.parametrize("command", commands())
def test_each_command_names_what_is_there(command: str) -> None:
    """Its program comes with the set-up or is the repository's own, and so is each file that it names."""
    program, *arguments = shlex.split(command)
    assert program == "python3" or program.removeprefix(".venv/bin/") in TOOLS or (ROOT / program).is_file()
    for name in arguments:
        if name.split("/")[0] in {"tests", "benchmarks"}:
            assert (ROOT / name).is_file()


def test_the_set_up_installs_the_linters() -> None:
    """The extra of the first command is one of the project's, with ruff and mypy in it."""
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^lint = \[.*\bmypy\b.*\bruff\b", project, re.MULTILINE)
    assert "-e '.[lint]' pre-commit" in commands()[1]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w./-]+\.(?:py|md|txt)|\.ci/run|benchmarks)`", GUIDE))))
def test_each_file_that_the_guide_names_is_there(name: str) -> None:
    assert (ROOT / name).exists() or list(ROOT.glob(f"*/*/{name}")) or "X" in name


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    """What is not released yet stands above it, and every release has its day."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert headings[1].startswith(f"[{VERSION}] - ")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


FORMS = {path.stem: path.read_text() for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")}
PAGES = {path.name: path.read_text() for path in [*(ROOT / ".github").glob("*.md"), ROOT / "README.md"]}
NAMED = [
    (page, name)
    for page, text in PAGES.items()
    for name in sorted(set(re.findall(r"`((?:tests|benchmarks|\.github|\.ci)/[\w./-]+)`", text)))
]


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_what_a_page_names_by_its_path_is_there(page: str, name: str) -> None:
    assert (ROOT / name).exists() or "X" in name


@pytest.mark.parametrize("form", ["bug", "feature", "question"])
def test_every_form_warns_of_secrets(form: str) -> None:
    """Whoever fills it in is told before the field, not after."""
    assert "no secret, token" in re.sub(r"\s+", " ", FORMS[form]).lower()


@pytest.mark.parametrize("form", ["bug", "question"])
def test_the_forms_ask_what_doctor_prints(form: str) -> None:
    assert "`invoicing-async doctor` prints" in FORMS[form]
