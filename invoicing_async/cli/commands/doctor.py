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
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from attrs import asdict, frozen
from rich.text import Text

from ...auth import OAuthClientCredentials, StaticToken
from ...clock import RealClock
from ...errors import InvoicingError
from ...policies import RetryPolicy, Timeouts
from ...session import Session
from ...transport import Exchange, Request
from ..exits import CommandError, Exit
from ..input.options import FLAG, Common
from ..input.settings import DOCUMENTS, ENV_FILE, INVOICES, Service, Settings
from ..terminal.output import Output, hints, plain

__all__ = ["Finding", "clock_difference", "doctor", "findings"]

SKEW = 5.0
"""Seconds between the clocks that are worth a word: a signature carries a timestamp."""

Grade = Literal["ok", "note", "bad"]
_MARKS: Mapping[Grade, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "bad": ("no", "bold red"),
}
_clock = RealClock()


@frozen
class Finding:
    """One thing that was looked at."""

    section: str
    subject: str
    grade: Grade
    text: str


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
        usable = [s for s in (DOCUMENTS, INVOICES) if _is_used(settings, s) and not settings.missing(s)]
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


def findings(settings: Settings) -> Iterator[Finding]:
    """Look at the settings without asking anybody."""
    missing = {service.title: settings.missing(service) for service in (DOCUMENTS, INVOICES)}
    used = {service.title: _is_used(settings, service) for service in (DOCUMENTS, INVOICES)}
    for service in (DOCUMENTS, INVOICES):
        if not used[service.title]:
            alone = not any(used.values())
            yield Finding(service.title, "all", "bad" if alone else "note", f"nothing of {service.prefix}… is set")
            continue
        for variable in service.variables:
            name, value = service.name(variable), settings.get(service, variable.name)
            if name in missing[service.title]:
                yield Finding(service.title, name, "bad", f"not set: {variable.meaning}")
            elif value is not None and value != value.strip():
                yield Finding(service.title, name, "note", "set; begins or ends with white space, is that meant?")
            elif value is not None:
                yield Finding(service.title, name, "ok", "set")
        if not missing[service.title]:
            yield from _usable(settings, service)
    for name in settings.unknown():
        yield Finding("Other variables", name, "bad", "is none of ours: misspelled?")


def _is_used(settings: Settings, service: Service) -> bool:
    return any(settings.get(service, variable.name) is not None for variable in service.variables)


def _usable(settings: Settings, service: Service) -> Iterator[Finding]:
    """Build what the settings describe, as a call would."""
    try:
        if service is DOCUMENTS:
            settings.documents()
        else:
            settings.names(), settings.endpoints(), settings.invoices()
    except CommandError as error:
        yield Finding(service.title, "settings", "bad", str(error))
        return
    url = urlsplit(settings.base_url(service))
    try:
        local = ip_address(url.hostname or "").is_loopback
    except ValueError:
        local = url.hostname == "localhost"
    if url.scheme == "http" and not local:
        yield Finding(service.title, "base URL", "bad", "http: the credentials would travel unencrypted")
    else:
        yield Finding(service.title, "settings", "ok", "complete")
    if proxy := settings.network.way_to(settings.base_url(service)):
        yield Finding(service.title, "proxy", "ok", f"calls go through {proxy}")


async def _asked(settings: Settings, service: Service) -> list[Finding]:
    try:
        url = Session(settings.base_url(service), auth=StaticToken("-")).base_url
    except (CommandError, ValueError):
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
    except CommandError:
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
