"""What the settings amount to: what is missing, misspelled or wrong, before anything is called."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_address
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from ..auth import credential_fault
from ._settings import Settings
from ._variables import DOCUMENTS, INVOICES, PROXY, Service, SettingsError, Variable

__all__ = ["Finding", "Grade", "findings"]

Grade: TypeAlias = Literal["ok", "note", "bad"]
"""Right; worth a look; would not work."""

PREFIX_LENGTH = 16
"""Characters of a signature's prefix that are shown: more may be a key in the wrong place."""


@frozen
class Finding:
    """One thing that was looked at: the `section` it belongs to, its name, and what is to be said of it.

    `source` says where a setting came from, `hint` what to do. No secret is in any of it.
    """

    section: str
    subject: str
    grade: Grade
    text: str
    source: str = ""
    hint: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is set, missing, misspelled or wrong for each service, and how it would be reached; nobody is asked.

    Of a value only its length is shown, but for the base URL and for what the services' documents leave open.
    """
    used = {service.title: settings.uses(service) for service in (DOCUMENTS, INVOICES)}
    for service in (DOCUMENTS, INVOICES):
        if not used[service.title]:
            alone = not any(used.values())
            text = f"nothing of {service.prefix}… is set"
            yield Finding(service.title, "all", "bad" if alone else "note", text, hint=_looked(settings))
            continue
        each = [found for variable in service.variables for found in _variable(settings, service, variable)]
        yield from each
        yield from _usable(settings, service, told=[found.subject for found in each if found.grade == "bad"])
    for name in settings.unknown():
        source = settings.sources.get(name, "")
        yield Finding("Other variables", name, "bad", "is none of ours: misspelled?", source)


def _looked(settings: Settings) -> str:
    return f"Looked for in {settings.searched}."


def _variable(settings: Settings, service: Service, variable: Variable) -> Iterator[Finding]:
    name, value = service.name(variable), settings.get(service, variable.name)
    source = settings.sources.get(name, "")
    if name in settings.missing(service):
        yield Finding(service.title, name, "bad", f"not set: {variable.meaning}", hint=_looked(settings))
    elif value is None:
        if variable.default:
            yield Finding(service.title, name, "ok", f"{variable.default}{_open(variable)}", "default")
    elif fault := credential_fault(value):
        yield Finding(service.title, name, "bad", fault, source, hint="Write it again, without that.")
    else:
        text = f"{_shown(settings, service, variable.name, value)}{_open(variable)}"
        yield Finding(service.title, name, "ok", text, source)


def _open(variable: Variable) -> str:
    """Return what a variable is there for, if that is a point which the services' documents leave open."""
    return f"; left open by the documents: {variable.meaning}" if variable.is_open else ""


def _shown(settings: Settings, service: Service, name: str, value: str) -> str:
    """Return what may be shown of a value: the whole only where it cannot be a secret in the wrong place."""
    try:
        if name == "BASE_URL":
            url = urlsplit(settings.base_url(service))
            return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
        readers = {
            "SIGN_FULL_PATH": settings.rules,
            "SIGN_QUERY": settings.rules,
            "NAMES": settings.names,
            "ENDPOINTS": settings.endpoints,
        }
        if name in readers:
            readers[name]()
            return value
    except SettingsError:
        pass  # told by itself
    if name == "SIGNATURE_PREFIX" and len(value) <= PREFIX_LENGTH:
        return repr(value)
    return f"set, {len(value):,} character{'' if len(value) == 1 else 's'}"


def _usable(settings: Settings, service: Service, *, told: Collection[str]) -> Iterator[Finding]:
    """Build what the settings describe, as a call would; `told` are the variables whose faults were said."""
    try:
        (settings.documents if service is DOCUMENTS else settings.invoices)()
    except SettingsError as error:
        new = [fault for fault in error.faults if fault.split(" ")[0] not in {"not", *told}]
        yield from (Finding(service.title, "settings", "bad", fault) for fault in new)
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
        asked_for = settings.network.proxy is not None
        source = settings.sources.get(PROXY, "--proxy") if asked_for else "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
        yield Finding(service.title, "proxy", "ok", f"calls go through {proxy}", source)
