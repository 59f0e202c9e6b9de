"""A wrong command line: which word is wrong, what is near it, and whose help to read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from cyclopts import App
from served import Cli, clean

from invoicing_async.cli.app import app
from invoicing_async.cli.exits import Exit

HELP = "shows what there is."
DASHED = "begins with a long dash: write --"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)


def commands(at: App = app, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command there is."""
    names = [name for name in at if not name.startswith("-")]
    for name in names:
        yield from commands(at[name], *path, name)
    if not names:
        yield path


def options(command: tuple[str, ...]) -> list[str]:
    """Every option that a command has."""
    _, path, _ = app.parse_commands(command)
    found = path[-1].assemble_argument_collection()
    return [name for argument in found for name in argument.names if name.startswith("--")]


COMMANDS = list(commands())


def swapped(word: str) -> str:
    """The word with two of its letters the wrong way round, which everybody's fingers do."""
    at = next(at for at in range(len(word) - 2, 0, -1) if word[at] != word[at + 1] and "-" not in word[at : at + 2])
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def test_the_commands_are_all_there() -> None:
    """None was lost on its way into its group."""
    assert {" ".join(command) for command in COMMANDS} == {
        "completion", "demo", "doctor", "sandbox", "schema", "sign", "documents download",
        "invoices submit", "invoices wait", "invoices status", "invoices example",
        "runs show", "runs resume", "runs verify", "runs resolve", "runs retry", "runs export", "runs refresh",
        "runs accept-lost-log", "runs report", "runs import",
        "ledger migrate", "ledger check", "worker", "runs pause", "runs unpause", "runs unhalt",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_mistyped_option_of_every_command_is_named_with_what_is_near(command: tuple[str, ...], cli: Cli) -> None:
    """Alone, before and after the file that the command is about, with a value and without."""
    known = options(command)
    for option, behind in zip(known, cycle([(), ("x",), ("x", "--report", "r.csv"), ("--quiet",)]), strict=False):
        wrong = swapped(option) if len(set(option)) > 3 else f"{option}x"
        assert wrong not in known
        # A key may begin with hyphens: only behind it is a word known to be an option.
        before = ("x", "y") if command[-1] in {"resolve", "retry"} else ("x",) if "r.csv" in behind else ()
        code, out, err = cli(*command, *before, f"{wrong}=5" if behind == ("x",) else wrong, *behind)
        assert (code, out) == (Exit.USAGE, "")
        first, second = err.splitlines()
        assert first == f"invoicing-async: Unknown option: {wrong}. Did you mean {option}?"
        assert second == f"  `invoicing-async {' '.join(command)} --help` {HELP}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_mistyped_command_is_named_with_what_is_near(command: tuple[str, ...], cli: Cli) -> None:
    """Each word of it, and a command that was given without its group."""
    for at, word in enumerate(command):
        code, _, err = cli(*command[:at], swapped(word), "x")
        assert code == Exit.USAGE
        assert f'Unknown command "{swapped(word)}". Did you mean {word}? Available commands: ' in err
        assert f"  `{' '.join(('invoicing-async', *command[:at]))} --help` {HELP}" in err
    if len(command) > 1:
        said = f'Unknown command "{command[-1]}". Did you mean {" ".join(command)}?'
        assert said in cli(command[-1], "x")[2]


@pytest.mark.parametrize(
    ("tokens", "said", "hint"),
    [
        (["--verison"], "Unknown option: --verison. Did you mean --version?", "--help"),
        (["--quiet", "documents", "download"], "--quiet. The options of a command stand behind it.", "--help"),
        (["documents", "--quiet", "download"], "--quiet. The options of a command", "documents --help"),
        (
            ["documents", "download", "x", "y", "--to", "z"],
            "what to do with 'y': too many",
            "download --help",
        ),
        (["documents", "download", "x"], "--to requires an argument", "download --help"),
        (
            ["documents", "download", "x", "\u2014to", "y"],
            "--to requires an argument",
            f"\u2014to {DASHED}to",
        ),
        (
            ["documents", "download", "x", "--to", "y", "\u2013-quiet"],
            "'\u2013-quiet'",
            f"{DASHED}quiet",
        ),
        (["documents", "download", "-x", "--to", "y"], "-x", "download --help"),
        (["runs", "show", "x", "--state", "in_dobt"], 'Did you mean "in_doubt"?', "runs show --help"),
    ],
)
def test_other_wrong_lines_say_what_to_write(tokens: list[str], said: str, hint: str, cli: Cli) -> None:
    code, out, err = cli(*tokens)
    first, second = err.splitlines()
    assert (code, out) == (Exit.USAGE, "")
    assert said in first
    assert hint in second


@pytest.mark.parametrize(
    "tokens",
    [
        ("runs", "retry", "absent.db", "--key-that-begins-so"),
        ("runs", "retry", "absent.db", "--", "--undo"),
        ("documents", "download", "-", "--to", "out"),
        ("documents", "download", "x", "--to", "out", "--env_file", "absent"),
        ("documents", "download", "x", "--to=out", "--no-verify", "--run", "r.db"),
    ],
)
def test_what_is_right_is_taken(tokens: tuple[str, ...], cli: Cli) -> None:
    """A key may begin with hyphens, - is stdin, an underscore is as good as a hyphen: it fails for other reasons."""
    code, _, err = cli(*tokens)
    assert code == Exit.USAGE
    assert "Unknown" not in err


LOCAL = {"completion", "schema", "sandbox", "demo", "sign", "invoices example"}
LOCAL |= {
    f"runs {name}"
    for name in (
        "show",
        "verify",
        "retry",
        "export",
        "report",
        "accept-lost-log",
        "import",
        "pause",
        "unpause",
        "unhalt",
    )
}
LOCAL |= {"ledger migrate", "ledger check"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_of_the_network_are_for_what_calls_a_service(command: tuple[str, ...]) -> None:
    """All of them there, and none where nothing is sent."""
    network = {"--proxy", "--ca-file"}
    assert network & {*options(command)} == (set() if " ".join(command) in LOCAL else network)
