"""What is set, where it came from, and the sessions that it describes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from os import PathLike
from pathlib import Path
from ssl import SSLContext
from typing import Any, Protocol, Self, TypeVar, Unpack

from attrs import AttrsInstance, Factory, evolve, field, fields_dict, frozen

from .._einvoices.links import checked_base_url
from ..auth import Auth, HmacAuth, OAuthClientCredentials, SigningRules, StaticToken, credential_fault
from ..drafts import WireNames
from ..invoices import AsyncInvoices, Endpoints
from ..policies import Limits, RetryPolicy
from ..session import ServiceName, Session, SessionOptions
from ..session._session import internals_of
from ._env_file import Line, read_env_file
from ._network import Network, trust_only
from ._variables import (
    CA_FILE,
    DEBUG,
    DOCUMENTS,
    ENV_FILE,
    INVOICES,
    LEDGER,
    LOG,
    PREFIX,
    PROXY,
    SERVICES,
    WAIVER,
    Service,
    SettingsError,
)

__all__ = ["Pace", "Settings"]

T = TypeVar("T")
S = TypeVar("S")
_YES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_HINT = (
    "Set it in the environment, or in a file of NAME=VALUE lines that env_file, --env-file or INVOICING_ENV_FILE "
    "names; `invoicing-async doctor` lists all there is."
)


class Pace(Protocol):
    """How hard a service is pressed. Both raise `ValueError` for a value outside its limits."""

    @property
    def limits(self) -> Limits:
        """The limits of a session."""
        ...

    @property
    def retry(self) -> RetryPolicy:
        """The retry policy of a session."""
        ...


@frozen
class Settings:
    """The variables that are set, and the sessions that they describe. No value has a repr.

    `load` finds them; `values` may also be given, by their whole names. `sources` says in words where each came from,
    `searched` where one that is missing was looked for.
    """

    values: Mapping[str, str] = field(repr=False)
    network: Network = Factory(Network)
    sources: Mapping[str, str] = field(factory=dict, repr=False, eq=False)
    searched: str = field(default="the values that were given", eq=False)

    @classmethod
    def load(
        cls,
        env_file: str | PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        proxy: str | None = None,
        ca: SSLContext | None = None,
    ) -> Self:
        """Gather the variables of the environment, and of the file that is given or that `INVOICING_ENV_FILE` names.

        The file has lines `NAME=VALUE`; a variable of the environment goes before one of the file. `environ` is
        `os.environ` by default. `proxy` and `ca` go before `INVOICING_PROXY` and `INVOICING_CA_FILE`.

        Raises `SettingsError` for a file that cannot be read; it never shows a line of it. Whether the services'
        variables are there and right is judged when a session is made.
        """
        environ = os.environ if environ is None else environ
        file = env_file or environ.get(ENV_FILE)
        lines: dict[str, Line] = read_env_file(Path(file)) if file else {}
        ours = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        values = {name: line.value for name, line in lines.items()} | ours
        sources = {name: f"{file} line {line.number}" for name, line in lines.items()}
        sources |= dict.fromkeys(ours, "the environment")
        if ca is None and (authorities := values.get(CA_FILE)):
            try:
                ca = trust_only(authorities)
            except SettingsError as error:
                raise SettingsError(f"{CA_FILE}: {error} (set in {sources[CA_FILE]})") from None
        searched = f"the environment and {file}" if file else "the environment; no file of settings is named"
        return cls(values, Network(proxy or values.get(PROXY) or None, ca), sources, searched)

    def get(self, service: Service, name: str) -> str | None:
        """Return a variable's value; None if it is not set. An empty one counts only where it means something."""
        value = self.values.get(service.prefix + name)
        return value if value or (value is not None and name == "SIGNATURE_PREFIX") else None

    def uses(self, service: Service) -> bool:
        """Tell whether any variable of the service is set."""
        return any(self.get(service, variable.name) is not None for variable in service.variables)

    def missing(self, service: Service) -> tuple[str, ...]:
        """Name the variables that the service needs and that are not set."""
        return tuple(
            service.name(variable)
            for variable in service.variables
            if variable.required
            and self.get(service, variable.name) is None
            and not (variable.instead and self.get(service, variable.instead))
        )

    def unknown(self) -> tuple[str, ...]:
        """Name the variables that look like ours and are not: most likely misspelled."""
        known = {service.name(variable) for service in (DOCUMENTS, INVOICES) for variable in service.variables}
        known |= {ENV_FILE, PROXY, CA_FILE, LOG, DEBUG}
        known |= {LEDGER, WAIVER} & os.environ.keys()
        return tuple(sorted(name for name in self.values if name.startswith(PREFIX) and name not in known))

    def base_url(self, service: Service) -> str:
        """Return the base URL. Raises `SettingsError` if it is not one; its value is not shown: it may be anything."""
        value = self.get(service, "BASE_URL") or ""
        self._made(service, "BASE_URL", lambda: checked_base_url(value))
        return value

    def partner(self) -> HmacAuth:
        """Return the partner signature. Raises `SettingsError` naming all that is missing or wrong."""
        _all_of(lambda: self._check(DOCUMENTS), self.rules)
        names = ("PARTNER_CLIENT_ID", "SECRET_KEY", "STORE_CLIENT_ID", "STORE_TOKEN")
        given: dict[str, Any] = {name.lower(): self.get(DOCUMENTS, name) for name in names}
        return _built(lambda: HmacAuth(**given, rules=self.rules()), DOCUMENTS.prefix)

    def client(self) -> Auth:
        """Return the bearer token or the client of service B. Raises `SettingsError` as `partner` does."""
        self._check(INVOICES)
        token = self.get(INVOICES, "TOKEN")
        if token is not None:
            return _built(lambda: StaticToken(token), INVOICES.prefix)
        names = ("CLIENT_ID", "CLIENT_SECRET", "TENANT_CONNECTION_CODE", "SCOPE")
        given: dict[str, Any] = {name.lower(): self.get(INVOICES, name) for name in names}
        if path := self.get(INVOICES, "TOKEN_PATH"):
            if not path.startswith("/"):
                raise self._wrong(INVOICES, "TOKEN_PATH", "must begin with /: it is a path below the base URL")
            given["path"] = path
        return _built(lambda: OAuthClientCredentials(**given), INVOICES.prefix)

    def names(self) -> WireNames:
        """Return the JSON names of service B. Raises `SettingsError` for one that is not known."""
        return self._made(INVOICES, "NAMES", lambda: WireNames(**self._fields("NAMES", WireNames())))

    def endpoints(self) -> Endpoints:
        """Return the paths of service B. Raises `SettingsError` for one that is not known."""
        return self._made(INVOICES, "ENDPOINTS", lambda: Endpoints(**self._fields("ENDPOINTS", Endpoints())))

    def documents(self, pace: Pace | None = None, **options: Unpack[SessionOptions]) -> Session:
        """Return a session with service A; `options` are those of `Session`."""
        return self.session("documents", Session, pace, **options)

    def invoices(self, pace: Pace | None = None, **options: Unpack[SessionOptions]) -> Session:
        """Return a session with service B; `options` are those of `Session`."""
        return self.session("invoices", Session, pace, **options)

    def e_invoices(self, session: Session, *, rounding: Decimal | None = None) -> AsyncInvoices:
        """Return the e-invoices of service B, with its names and paths."""
        return AsyncInvoices(session, names=self.names(), endpoints=self.endpoints(), rounding=rounding)

    def session(
        self, name: ServiceName, kind: Callable[..., S], pace: Pace | None = None, **options: Unpack[SessionOptions]
    ) -> S:
        """Return a session of this kind. Raises `SettingsError` with everything that is missing or wrong.

        `options` are those of `kind`, and go before the settings.
        """
        if (service := SERVICES.get(name)) is None:
            raise ValueError(f"service must be {' or '.join(map(repr, SERVICES))}, got {name!r}")
        auth = self.partner if service is DOCUMENTS else self.client
        about = () if service is DOCUMENTS else (self.names, self.endpoints)
        url = (lambda: self.base_url(service),) if self.get(service, "BASE_URL") else ()
        _all_of(auth, *about, *url, self.network.check)
        if pace is not None:
            try:
                options = {"limits": pace.limits, "retry": pace.retry, **options}
            except ValueError as error:
                raise SettingsError(f"pace: {error}") from None
        options = {"transport": self.network.transport, **options}
        made = _built(lambda: kind(self.base_url(service), auth=auth(), **options), service.prefix)
        if service is INVOICES and isinstance(made, Session):
            internals_of(made).presets = {WireNames: self.names(), Endpoints: self.endpoints()}
        return made

    def _made(self, service: Service, name: str, make: Callable[[], T]) -> T:
        """Make what a variable describes. Raises `SettingsError` that names it, without its value."""
        try:
            return make()
        except SettingsError:
            raise
        except ValueError as error:
            raise self._wrong(service, name, _unquoted(error)) from None

    def _wrong(self, service: Service, name: str, fault: str) -> SettingsError:
        whole = service.prefix + name
        source = self.sources.get(whole)
        return SettingsError(f"{whole} {fault}{f' (set in {source})' if source else ''}", hint="Write it again.")

    def _check(self, service: Service) -> None:
        """Raise `SettingsError` for what is missing, and for values that no credential can be."""
        faults = [
            self._wrong(service, variable.name, fault).faults[0]
            for variable in service.variables
            if (fault := credential_fault(self.get(service, variable.name) or ""))
        ]
        if missing := self.missing(service):
            faults.insert(0, f"not set: {', '.join(missing)} (looked for in {self.searched})")
        if faults:
            raise SettingsError(*faults, hint=_HINT if missing else "Write it again, without that.")

    def rules(self) -> SigningRules:
        """Return how requests are signed (README A.2). Raises `SettingsError` for a switch that is no true or false."""
        rules = SigningRules(
            full_path=self._switch("SIGN_FULL_PATH"),
            include_query=self._switch("SIGN_QUERY"),
        )
        prefix = self.get(DOCUMENTS, "SIGNATURE_PREFIX")
        return rules if prefix is None else evolve(rules, prefix=prefix)

    def _switch(self, name: str) -> bool:
        value = self.get(DOCUMENTS, name) or "false"
        if value.lower() not in _YES:
            raise self._wrong(DOCUMENTS, name, "must be true or false")
        return _YES[value.lower()]

    def _fields(self, name: str, default: AttrsInstance) -> dict[str, Any]:
        """Read `field=value,…` as the fields of such a value."""
        known = fields_dict(type(default))
        given: dict[str, Any] = {}
        for number, part in enumerate(filter(str.strip, (self.get(INVOICES, name) or "").split(",")), 1):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in known:
                # What stands there is not shown: it may be a secret in the wrong place.
                raise self._wrong(INVOICES, name, f"part {number} must be one of {', '.join(known)}, = and a value")
            is_switch = isinstance(known[key].default, bool)
            if is_switch and value.lower() not in _YES:
                raise self._wrong(INVOICES, name, f"part {number}: {key} must be true or false")
            given[key] = _YES[value.lower()] if is_switch else value
        return given


def _all_of(*checks: Callable[[], object]) -> None:
    """Do every check. Raises one `SettingsError` with the faults of all."""
    errors: list[SettingsError] = []
    for check in checks:
        try:
            check()
        except SettingsError as error:
            errors.append(error)
    if errors:
        faults = dict.fromkeys(fault for error in errors for fault in error.faults)
        raise SettingsError(*faults, hint=errors[0].hint) from None


def _built(make: Callable[[], T], name: str) -> T:
    try:
        return make()
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"a setting of {name}… is wrong: {_unquoted(error)}") from None


def _unquoted(error: ValueError) -> str:
    """Return what must hold of a value without what was given: it may be a secret in the wrong place."""
    return str(error).partition(", got ")[0].removeprefix("base_url ")
