"""`doctor`: what is set up and what is not, without a secret; with --online, whether the services answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from attrs import asdict
from rich.text import Text

from ...settings import Finding, Grade, ask_services, findings, program_findings
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
    """Check the settings, say where each came from, and never a secret. Exit code 1 if something would not work.

    Parameters
    ----------
    online
        Also ask each service for an answer, compare the clocks, and try the credentials with calls that can do no harm:
        for the invoice of an order that cannot exist, for a token, and for the status of a request that cannot exist.
        A service that is down proves no credential: exit code 1 then too.
    """
    common = common or Common()
    settings, output = common.settings(), Output.of(common)
    found = [*program_findings(common.env_file), *findings(settings)]
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
