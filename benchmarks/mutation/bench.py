"""Changes the pure modules a little at a time and counts how many of the changes a test notices.

    python benchmarks/mutation/bench.py [--group NAME ...] [--show] [--check] [--readme] [--keep FILE] [--jobs N]

Needs `pip install -r benchmarks/mutation/requirements.txt` beside the test extra. Each group of modules is mutated in a
copy of the project and tried with the tests that are its own, so nothing of the checkout changes. With `--keep` a run
may be stopped and gone on with: a group is tried again only if its modules or its tests have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from survivors import EQUIVALENT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LEAST = 90.0
"""Per cent of the mutants of a group that have to be killed."""


class Group(NamedTuple):
    """Modules that are one subject, and the tests that must notice a change of them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    runs_at_import: bool = False
    """True if some of its functions run while it is imported: what survives is tried again in a new interpreter."""


GROUPS = {
    "signing": Group(("_core/signing.py",), ("core/test_signing.py",)),
    "clocks": Group(("_core/clock_offset.py",), ("core/test_clock_offset.py",)),
    "governor": Group(
        (
            "_governor/budget.py",
            "_governor/concurrency.py",
            "_governor/lane.py",
            "_governor/outage.py",
            "_core/fair.py",
            "_core/rate_limiter.py",
        ),
        (
            "governor/test_outage_rules.py",
            "governor/test_concurrency_rules.py",
            "governor/test_lane_properties.py",
            "core/test_rate_limiter.py",
        ),
    ),
    "polling": Group(
        ("_values/adaptive_polling.py",),
        (
            "values/test_adaptive_estimate.py",
            "values/test_adaptive_polling.py::test_a_ceiling_below_the_floor_is_named",
            "values/test_adaptive_polling.py::test_without_data_the_waits_grow_with_the_square_root_of_the_age",
            "values/test_adaptive_polling.py::test_the_plan_is_the_minimum_that_trying_every_next_poll_finds",
            "values/test_adaptive_polling.py::test_ends_that_no_prior_expects_at_every_age_at_once_do_not_break_it",
        ),
    ),
    "naming": Group(("_files/names.py", "_files/disposition.py"), ("files/test_names.py",)),
    "pdf": Group(("_files/pdf.py",), ("files/test_pdf.py", "files/test_pdf_producers.py")),
    "run states": Group(("_durable/states.py",), ("durable/test_states.py",), runs_at_import=True),
    "outcome table": Group(("_core/outcomes.py",), ("core/test_outcomes.py",), runs_at_import=True),
    "retry decision": Group(("session/_retry.py",), ("session/test_retry_decision.py",)),
    "wire": Group(
        ("_einvoices/encode.py", "_einvoices/decode.py", "_einvoices/rules.py"),
        (
            "einvoices/test_encode.py",
            "einvoices/test_decode.py",
            "einvoices/test_rules.py",
            "einvoices/test_field_rules.py",
            "einvoices/test_draft_json.py",
            "einvoices/test_dumped_drafts.py",
            "core/test_answers.py",
        ),
    ),
}

CONFIG = """
[tool.mutmut]
source_paths = ["invoicing_async"]
only_mutate = {modules}
pytest_add_cli_args = {arguments}
pytest_add_cli_args_test_selection = {tests}
also_copy = ["README.md", "benchmarks", ".github"]
use_setproctitle = false
"""


ARGUMENTS = ("-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider", "-x", "-q")
"""Of pytest: one process, the order of the files, and the first failure is enough."""

PATIENCE = 600.0
"""Seconds for the tests of one group in a new interpreter; a mutant that needs longer has been noticed."""


class Tried(NamedTuple):
    """What became of a group's mutants, by their names, and the changes that have survived without a reason."""

    killed: int
    survived: tuple[str, ...]
    shown: str = ""

    @property
    def total(self) -> int:
        return self.killed + len(self.survived)

    @property
    def share(self) -> float:
        return 100.0 * self.killed / self.total if self.total else 0.0

    def unexplained(self) -> list[str]:
        """The survivors for which no reason is written down."""
        return [name for name in self.survived if name not in EQUIVALENT]


def copied(folder: Path, group: Group) -> None:
    """Copy what git knows of the project, with the settings of the mutation in its pyproject."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    modules = [f"invoicing_async/{module}" for module in group.modules]
    tests = [f"tests/{test}" for test in group.tests]
    with (folder / "pyproject.toml").open("a") as config:
        config.write(
            CONFIG.format(modules=json.dumps(modules), tests=json.dumps(tests), arguments=json.dumps(ARGUMENTS))
        )


def environment(**more: str) -> dict[str, str]:
    """The environment without the variable that would lead past the copy."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more


def mutmut(folder: Path, *words: str) -> str:
    """Return what mutmut says there; its failure ends the program."""
    command = [sys.executable, "-m", "mutmut", *words]
    ran = subprocess.run(command, cwd=folder, env=environment(), check=False, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"the mutation did not run:\n{(ran.stdout + ran.stderr)[-4000:]}")
    return ran.stdout


def passes(folder: Path, group: Group, mutant: str = "") -> bool:
    """Tell whether the group's tests pass in a new interpreter, with this mutant from the first import on."""
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, *(f"tests/{test}" for test in group.tests)]
    changed = environment(MUTANT_UNDER_TEST=mutant)
    try:
        ran = subprocess.run(
            command, cwd=folder / "mutants", env=changed, check=False, capture_output=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return False
    return ran.returncode == 0


class Kept:
    """What became of the groups that were tried before, in a file; each counts while its own files are the same."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file and file.is_file() else {}

    def get(self, name: str) -> Tried | None:
        found = self._found.get(name)
        if found is None or found["of"] != digest(GROUPS[name]):
            return None
        return Tried(found["killed"], tuple(found["survived"]))

    def put(self, name: str, group: Tried) -> None:
        if self._file is not None:
            survived = list(group.survived)
            self._found[name] = {"of": digest(GROUPS[name]), "killed": group.killed, "survived": survived}
            self._file.write_text(json.dumps(self._found, indent=1))


def digest(group: Group) -> str:
    """Return a digest of the group's modules and tests. What all tests share is not looked at."""
    files = [ROOT / "invoicing_async" / module for module in group.modules]
    files += [ROOT / "tests" / test.partition("::")[0] for test in group.tests]
    contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in sorted(set(files)))
    return hashlib.sha256(contents + repr(group).encode()).hexdigest()


def tried(group: Group, *, show: bool, jobs: int) -> Tried:
    """Run every mutant of the group."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder, group)
        mutmut(folder, "run", "--max-children", str(jobs))
        first = counted(mutmut(folder, "results", "--all", "true"))
        # A function that runs at import runs unchanged in a process that was forked after it.
        again = first.unexplained() if group.runs_at_import else []
        if again and not passes(folder, group):
            raise SystemExit("the tests fail without any mutant in a new interpreter")
        noticed = {mutant for mutant in again if not passes(folder, group, mutant)}
        left = Tried(first.killed + len(noticed), tuple(mutant for mutant in first.survived if mutant not in noticed))
        shown = [mutmut(folder, "show", mutant) for mutant in left.unexplained()] if show else []
        return left._replace(shown="\n".join(shown))


def counted(shown: str) -> Tried:
    """Read a line for each mutant: its name and what became of it. A time-out is noticed too."""
    lines = [line.strip().rpartition(": ") for line in shown.splitlines() if "__mutmut_" in line]
    survived = [name for name, _, state in lines if state not in {"killed", "timeout", "segfault"}]
    return Tried(len(lines) - len(survived), tuple(survived))


def needless(name: str, group: Tried) -> list[str]:
    """The mutants of a group for which a reason is written down though they do not survive."""
    modules = tuple(f"invoicing_async.{module[:-3].replace('/', '.')}." for module in GROUPS[name].modules)
    return [mutant for mutant in EQUIVALENT if mutant.startswith(modules) and mutant not in group.survived]


def header() -> str:
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    return f"{machine}; mutmut {version('mutmut')}, pytest {version('pytest')}."


def table(found: dict[str, Tried]) -> list[str]:
    lines = ["| modules | mutants | killed | % | survivors with a reason |", "|---|--:|--:|--:|--:|"]
    for name, group in found.items():
        explained = len(group.survived) - len(group.unexplained())
        counts = f"{group.total} | {group.killed} | {group.share:.1f} | {explained} of {len(group.survived)}"
        lines.append(f"| {name}: {', '.join(f'`{module}`' for module in GROUPS[name].modules)} | {counts} |")
    return lines


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", action="append", choices=list(GROUPS), help="only this one; may be repeated")
    parser.add_argument("--show", action="store_true", help="print the changes that survived without a reason")
    parser.add_argument("--check", action="store_true", help=f"exit 1 if a group is below {LEAST:g} %%")
    parser.add_argument("--readme", action="store_true", help="put the table into the README beside this file")
    parser.add_argument("--keep", type=Path, help="a file of what was tried before, which is not tried again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants that are tried at once")
    return parser.parse_args()


def main() -> int:
    args = parsed()
    found, kept = {}, Kept(args.keep)
    for name in args.group or GROUPS:
        group = kept.get(name) or tried(GROUPS[name], show=args.show, jobs=args.jobs)
        found[name] = group
        kept.put(name, group)
        print(f"{name}: {group.killed} of {group.total}, {group.share:.1f} %", flush=True)
        for mutant in group.unexplained():
            print(f"  survived: {mutant}", flush=True)
        for mutant in needless(name, group):
            print(f"  has a reason and did not survive: {mutant}", flush=True)
        if group.shown:
            print(group.shown, flush=True)
    lines = [header(), "", *table(found)]
    print("\n".join(["", *lines]))
    if args.readme:
        readme = HERE / "README.md"
        head, rest = readme.read_text().split(BEGIN)
        readme.write_text("\n".join([head + BEGIN, *lines, END + rest.split(END)[1]]))
    below = [name for name, group in found.items() if group.share < LEAST]
    if args.check and below:
        print(f"below {LEAST:g} %: {', '.join(below)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
