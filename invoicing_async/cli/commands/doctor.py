"""`doctor`: what is set up and what is not, without a secret; with --online, whether the services answer."""

from __future__ import annotations

import asyncio
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from attrs import asdict
from rich.text import Text

from ...auth import OAuthClientCredentials, StaticToken
from ...clock import RealClock
from ...errors import InvoicingError
from ...policies import RetryPolicy, Timeouts
from ...session import Session
from ...settings import DOCUMENTS, ENV_FILE, INVOICES, Finding, Grade, Service, Settings, SettingsError, findings
from ...transport import Exchange, Request
from ..exits import Exit
from ..input.options import FLAG, Common
from ..terminal.output import Output, hints, plain

__all__ = ["clock_difference", "doctor"]

SKEW = 5.0
"""Seconds between the clocks that are worth a word: a signature carries a timestamp."""

_MARKS: Mapping[Grade, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "bad": ("no", "bold red"),
}
_clock = RealClock()


async def doctor(*, online: Annotated[bool, FLAG] = False, common: Common | None = None) -> int:
    """Check the settings; never prints a secret. Exit code 1 if something would not work.

    Parameters
    ----------
    online
        Also ask each base URL for an answer, compare the clocks, and try the client's token.
    """
    common = common or Common()
    settings, output = common.settings(), Output.of(common)
    found = [*_program(common.env_file), *findings(settings)]
    if online:
        usable = [s for s in (DOCUMENTS, INVOICES) if settings.uses(s) and not settings.missing(s)]
        for several in await asyncio.gather(*(_asked(settings, service) for service in usable)):
            found += several
    for finding in found:
        output.line(asdict(finding))
    bad = [finding for finding in found if finding.grade == "bad"]
    if output.quiet:
        for finding in bad:
            output.amiss(f"{finding.section}: {finding.subject}: {finding.text}")
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


async def _asked(settings: Settings, service: Service) -> list[Finding]:
    try:
        url = Session(settings.base_url(service), auth=StaticToken("-")).base_url
    except ValueError:
        return []  # what is wrong with it was said already
    transport = settings.network.transport(Timeouts(connect=5, read=5))
    begun = _clock.now()
    # Any answer, also without credentials, tells that the service is there, and what time it has.
    request = Request(method="GET", path="/", base_url=url.rstrip("/"), authorised=False)
    try:
        async with transport.send(request, Exchange()) as answer:
            elapsed, date, status = _clock.now() - begun, answer.header("Date"), answer.status
    except InvoicingError as error:
        return [Finding(service.title, "online", "bad", " ".join((f"{error}.", *hints(error))))]
    finally:
        await transport.close()
    text = f"answers ({status}, {elapsed * 1000:,.0f} ms)"
    found = [Finding(service.title, "online", "ok", text), _clocks(service, date, begun + elapsed / 2)]
    return [*found, *(await _token(settings) if service is INVOICES else [])]


def _clocks(service: Service, date: str | None, now: float) -> Finding:
    apart = clock_difference(date, now)
    if apart is None:
        return Finding(service.title, "clock", "note", "the service does not say what time it is")
    if abs(apart) <= SKEW:
        return Finding(service.title, "clock", "ok", "agrees with the service's to a few seconds")
    side = "ahead of" if apart > 0 else "behind"
    return Finding(service.title, "clock", "bad", f"this machine is {abs(apart):,.0f} s {side} the service")


def clock_difference(date: str | None, now: float) -> float | None:
    """Return by how many seconds `now` is ahead of a Date header; None if there is none that can be read."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


async def _token(settings: Settings) -> list[Finding]:
    """Ask for a token: it changes nothing at the service and tells whether the client is known."""
    try:
        session = settings.invoices(retry=RetryPolicy(attempts=1, deadline=15))
    except SettingsError:
        return []
    if not isinstance(session.auth, OAuthClientCredentials):
        return []
    try:
        async with session:
            await session.auth.prepare(session.call, session.clock)
    except InvoicingError as error:
        return [Finding(INVOICES.title, "token", "bad", " ".join((f"{error}.", *hints(error))))]
    return [Finding(INVOICES.title, "token", "ok", "the client is accepted")]


def _show(output: Output, found: list[Finding]) -> None:
    width = max(len(finding.subject) for finding in found)
    for section in dict.fromkeys(finding.section for finding in found):
        output.say(f"\n {section}", "bold")
        for finding in found:
            if finding.section == section:
                mark, style = _MARKS[finding.grade]
                subject = plain(finding.subject).ljust(width)
                text = Text.assemble("  ", (mark.ljust(4), style), "  ", subject, "  ", (plain(finding.text), "dim"))
                output.out.print(text, soft_wrap=True)
