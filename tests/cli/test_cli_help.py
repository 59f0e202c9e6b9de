"""The help of every command: examples that are right, in any width and encoding; and what completes commands."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from places import README
from served import Cli
from test_cli_usage import COMMANDS, options

from invoicing_async.cli.app import app, run
from invoicing_async.cli.examples import EXAMPLES
from invoicing_async.cli.exits import Exit

pytestmark = pytest.mark.usefixtures("no_settings")

GROUPS = {" ".join(command[:-1]) for command in COMMANDS}
LINES = [(command, line) for command, lines in EXAMPLES.items() for line in lines]


def test_every_command_and_group_has_examples() -> None:
    assert {*EXAMPLES} == GROUPS | {" ".join(command) for command in COMMANDS}


@pytest.mark.parametrize(("command", "line"), LINES, ids=[line for _, line in LINES])
def test_an_example_is_a_command_line(command: str, line: str) -> None:
    """It is of the command below whose help it stands, and cyclopts takes it; it is no longer than a wide terminal."""
    assert len(line) <= 118
    words = shlex.split(line.partition("source <(")[2].rstrip(") \t").partition(")")[0] or line, comments=True)
    words = words[words.index("invoicing-async") + 1 :]
    end = next((at for at, word in enumerate(words) if word in {"|", ">", "<"}), len(words))
    tokens = words[:end]
    assert " ".join(tokens).startswith(command)
    app.parse_args(tokens, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("command", [(), ("runs",), *COMMANDS], ids=" ".join)
def test_help_fits_a_narrow_window_and_can_be_written_anywhere(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is to be copied is unbroken; in ASCII, without colours in a pipe."""
    monkeypatch.setenv("COLUMNS", "40")
    seen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", seen)
    assert run([*command, "--help"]) == Exit.DONE
    seen.flush()
    text = seen.buffer.getvalue().decode("ascii")
    assert "\x1b" not in text
    help_, _, examples = text.partition("\nExamples\n")
    lines = re.sub(r"\\u[0-9a-f]{4}", "?", help_).splitlines()  # what ASCII has not is one character wide elsewhere
    assert max(map(len, lines)) <= 40
    assert [line for line in EXAMPLES[" ".join(command)] if f"  {line}\n" not in examples] == []


@pytest.mark.process
def test_what_completes_is_printed_for_each_shell(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        code, out, err = cli("completion", shell)
        assert (code, err) == (Exit.DONE, "")
        assert "invoicing-async" in out
    assert cli("completion", "tcsh")[0] == Exit.USAGE


def test_every_exit_code_stands_in_the_readme() -> None:
    table = README.read_text().partition("### How a command ends")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(Exit)


COMPLETE = """
source {file}
complete -p invoicing-async
while read -r line; do
    COMP_WORDS=($line); [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_LINE="$line"; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
    _invoicing_async invoicing-async "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
    echo "$line: ${{COMPREPLY[*]}}"
done
"""


@pytest.mark.process
def test_bash_completes_commands_and_options(cli: Cli, tmp_path: Path) -> None:
    """A real bash sources it: every command and every option of every command is offered."""
    script = tmp_path / "completion.bash"
    script.write_text(cli("completion", "bash")[1])
    wanted = {f"invoicing-async {' '.join(command)} --": {*options(command)} for command in COMMANDS}
    wanted |= {
        "invoicing-async do": {"doctor", "documents"},
        "invoicing-async runs res": {"resolve", "resume"},
        "invoicing-async documents download --on-existing n": {"new-name"},
    }
    complete_files = "complete -o bashdefault -o default -F _invoicing_async invoicing-async"
    bash = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", COMPLETE.format(file=script)],
        input="".join(f"{line}\n" for line in wanted),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, *told = bash.stdout.splitlines()
    assert (first, bash.stderr) == (complete_files, ""), "where nothing else is offered, files are"
    offered = {line.rpartition(": ")[0].strip(): {*line.rpartition(": ")[2].split()} for line in told}
    for line, words in wanted.items():
        missing = words - offered[line.strip()]
        assert not missing, (line, missing, offered[line.strip()])
    assert offered["invoicing-async do"] == {"doctor", "documents"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_that_lists_exit_codes_has_those_of_every_batch(command: tuple[str, ...], cli: Cli) -> None:
    """Whatever says when it ends with 3, since it can be stopped, also says when with 0, 1, 2 and 130."""
    text = cli(*command, "--help")[1].partition("Exit code ")[2].partition("\nExamples\n")[0]
    named = {code for code in ("0", "1", "2", "3", "130") if re.search(rf"\b{code}:", text)}
    assert "3" not in named or len(named) == 5
