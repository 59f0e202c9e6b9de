"""`doctor`: what is set up and what is not, without a secret; with --online, whether the services answer."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from attrs import asdict
from rich.text import Text

from ...settings import ENV_FILE, Finding, Grade, ask_services, findings
from ..exits import Exit
from ..input.options import FLAG, Common
from ..terminal.output import Output, plain

__all__ = ["doctor"]

_MARKS: Mapping[Grade, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "bad": ("no", "bold red"),
}


async def doctor(*, online: Annotated[bool, FLAG] = False, common: Common | None = None) -> int:
    """Check the settings; never prints a secret. Exit code 1 if something would not work.

    Each variable is shown with where it came from: the environment, a line of the file of settings, or the default.

    Parameters
    ----------
    online
        Also ask each service for an answer, compare the clocks, and try the credentials with calls that can do no harm:
        for the invoice of an order that cannot exist, for a token, and for the status of a request that cannot exist.
    """
    common = common or Common()
    settings, output = common.settings(), Output.of(common)
    found = [*_program(common.env_file), *findings(settings)]
    if online:
        found += await ask_services(settings)
    for finding in found:
        output.line(asdict(finding))
    bad = [finding for finding in found if finding.grade == "bad"]
    if output.quiet:
        for finding in bad:
            output.problem(f"{finding.section}: {finding.subject}: {finding.text}", finding.hint)
    elif not output.json:
        _show(output, found)
    return Exit.SOME_LEFT if bad else Exit.DONE


def _program(env_file: Path | None) -> Iterator[Finding]:
    """Look at what is installed, and at the file of the settings."""
    section = "Program"
    yield Finding(section, "Python", "ok", platform.python_version())
    for package in ("invoicing-async", "aiohttp"):
        try:
            yield Finding(section, package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(section, package, "note", "not installed as a package")
    fast = find_spec("uvloop") is not None
    yield Finding(
        section, "uvloop", "ok" if fast else "note", "used" if fast else "absent; invoicing-async[speed] has it"
    )
    named = os.environ.get(ENV_FILE)
    if (file := env_file or (Path(named) if named else None)) is None:
        return
    shared = os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    text = f"{file}: others on this machine may read it (chmod 600)" if shared else str(file)
    yield Finding(section, "settings file", "note" if shared else "ok", text)


def _show(output: Output, found: list[Finding]) -> None:
    width = max(len(finding.subject) for finding in found)
    for section in dict.fromkeys(finding.section for finding in found):
        output.say(f"\n {section}", "bold")
        for finding in found:
            if finding.section == section:
                mark, style = _MARKS[finding.grade]
                subject = plain(finding.subject).ljust(width)
                source = f"  [{plain(finding.source)}]" if finding.source else ""
                told = (f"{plain(finding.text)}{source}", "dim")
                output.out.print(Text.assemble("  ", (mark.ljust(4), style), "  ", subject, "  ", told), soft_wrap=True)
                if finding.hint:
                    output.say(f"        {plain(finding.hint)}", style)
