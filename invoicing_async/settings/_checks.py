"""What the settings amount to: what is missing, misspelled or wrong, before anything is called."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from ._settings import DOCUMENTS, INVOICES, Service, Settings, SettingsError

__all__ = ["Finding", "Grade", "findings"]

Grade: TypeAlias = Literal["ok", "note", "bad"]
"""Right; worth a look; would not work."""


@frozen
class Finding:
    """One thing that was looked at: the `section` it belongs to, its name, and what is to be said of it."""

    section: str
    subject: str
    grade: Grade
    text: str


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is set, missing, misspelled or wrong for each service, and how it would be reached; nobody is asked.

    No finding shows a value but the address of a proxy, without its credential.
    """
    missing = {service.title: settings.missing(service) for service in (DOCUMENTS, INVOICES)}
    used = {service.title: settings.uses(service) for service in (DOCUMENTS, INVOICES)}
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


def _usable(settings: Settings, service: Service) -> Iterator[Finding]:
    """Build what the settings describe, as a call would."""
    try:
        if service is DOCUMENTS:
            settings.documents()
        else:
            settings.names(), settings.endpoints(), settings.invoices()
    except SettingsError as error:
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
