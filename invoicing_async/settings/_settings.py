"""The variables of both services, and the sessions that they describe."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from os import PathLike
from pathlib import Path
from ssl import SSLContext, SSLError, create_default_context
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from attrs import AttrsInstance, evolve, field, fields_dict, frozen

from ..auth import Auth, HmacAuth, OAuthClientCredentials, SigningRules, StaticToken, credential_fault
from ..drafts import WireNames
from ..invoices import AsyncInvoices, Endpoints
from ..policies import Limits, RetryPolicy, Timeouts
from ..session import Session
from ..transport import proxy_fault, proxy_for

if TYPE_CHECKING:
    from ..transport import AiohttpTransport

__all__ = [
    "CA_FILE",
    "DOCUMENTS",
    "ENV_FILE",
    "INVOICES",
    "LOG",
    "PROXY",
    "Network",
    "Pace",
    "Service",
    "Settings",
    "SettingsError",
    "Variable",
    "trust_only",
]

T = TypeVar("T")
PREFIX = "INVOICING_"
ENV_FILE = "INVOICING_ENV_FILE"
"""The variable that names the file of settings."""
PROXY = "INVOICING_PROXY"
"""The variable with the URL of the proxy, its user and password included."""
LOG = "INVOICING_LOG"
"""The variable that says what is logged: a level, and a file after a colon."""
CA_FILE = "INVOICING_CA_FILE"
"""The variable that names the PEM file of the authorities that are trusted."""
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_YES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class SettingsError(ValueError):
    """A setting is missing or wrong; `hint` says what to do. It names variables and never shows the value of one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@frozen(kw_only=True)
class Variable:
    """One setting: the end of its name, and what it means. `instead` names the one that makes it unnecessary."""

    name: str
    meaning: str
    secret: bool = False
    required: bool = False
    instead: str = ""


@frozen
class Service:
    """One of the two services and the variables it is set up by, as `prefix` + name."""

    title: str
    prefix: str
    variables: tuple[Variable, ...]

    def name(self, variable: Variable) -> str:
        """Return the variable's whole name."""
        return self.prefix + variable.name


DOCUMENTS = Service(
    "Order documents",
    "INVOICING_DOCUMENTS_",
    (
        Variable(name="BASE_URL", meaning="where the service is, /api/v1 included", required=True),
        Variable(name="PARTNER_CLIENT_ID", meaning="x-partner-client-id", required=True),
        Variable(name="SECRET_KEY", meaning="the key of the signature", required=True, secret=True),
        Variable(name="STORE_CLIENT_ID", meaning="x-store-client-id", required=True),
        Variable(name="STORE_TOKEN", meaning="x-store-token", required=True, secret=True),
        Variable(name="SIGNATURE_PREFIX", meaning="before the hex digits; sha256= by default, may be empty"),
        Variable(name="SIGN_FULL_PATH", meaning="sign the base URL's own path too; false by default"),
        Variable(name="SIGN_QUERY", meaning="sign the query string too; false by default"),
    ),
)

INVOICES = Service(
    "E-invoices",
    "INVOICING_INVOICES_",
    (
        Variable(name="BASE_URL", meaning="where the service is, /api included", required=True),
        Variable(name="CLIENT_ID", meaning="who asks for tokens", required=True, instead="TOKEN"),
        Variable(name="CLIENT_SECRET", meaning="its secret", required=True, secret=True, instead="TOKEN"),
        Variable(name="TENANT_CONNECTION_CODE", meaning="whose invoices they are", required=True, instead="TOKEN"),
        Variable(name="TOKEN", meaning="a bearer token, instead of the three above", secret=True),
        Variable(name="SCOPE", meaning="the scope of a token"),
        Variable(name="TOKEN_PATH", meaning="where tokens are; /v2/oauth/token by default"),
        Variable(name="NAMES", meaning="JSON names, as payment_method=paymentMethod,… (see WireNames)"),
        Variable(name="ENDPOINTS", meaning="paths, as status_method=GET,status=/v2/…/{},… (see Endpoints)"),
    ),
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
class Network:
    """How the network is reached: what was asked for, and else what the environment says of proxies and authorities."""

    proxy: str | None = field(default=None, repr=False)
    ca: SSLContext | None = None

    def transport(self, timeouts: Timeouts | None = None) -> AiohttpTransport:
        """Make a transport. Raises `ValueError` for a proxy of the environment that is none."""
        from ..transport import AiohttpTransport

        return AiohttpTransport(proxy=self.proxy, ssl=self.ca, trust_env=True, timeouts=timeouts)

    def way_to(self, url: str) -> str | None:
        """Return the URL of the proxy that a URL is called through, without its credential; None for none."""
        return proxy_for(url, self.proxy)

    def check(self) -> None:
        """Raise `SettingsError` for a proxy that is none, where it was asked for or in the environment."""
        if self.proxy is not None and (fault := proxy_fault(self.proxy)):
            raise SettingsError(f"{PROXY} {fault}")
        try:
            proxy_for("https://", None)
        except ValueError as error:
            if self.proxy is None:
                raise SettingsError(f"a proxy in the environment is wrong: {error}") from None


@frozen
class Settings:
    """The variables that are set, and the sessions that they describe. No value has a repr.

    `load` finds them; `values` may also be given, by their whole names.
    """

    values: Mapping[str, str] = field(repr=False)
    network: Network = Network()

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
        ours = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        values = {**(_read(Path(file)) if file else {}), **ours}
        if ca is None and (authorities := values.get(CA_FILE)):
            try:
                ca = trust_only(authorities)
            except SettingsError as error:
                raise SettingsError(f"{CA_FILE}: {error}") from None
        return cls(values, Network(proxy or values.get(PROXY) or None, ca))

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
        known |= {ENV_FILE, PROXY, CA_FILE, LOG}
        return tuple(sorted(name for name in self.values if name.startswith(PREFIX) and name not in known))

    def base_url(self, service: Service) -> str:
        """Return the base URL. Raises `SettingsError` if it is not one; its value is not shown: it may be anything."""
        value = self.get(service, "BASE_URL") or ""
        if urlsplit(value).scheme not in {"http", "https"}:
            raise SettingsError(f"{service.prefix}BASE_URL must be an absolute http or https URL")
        return value

    def partner(self) -> HmacAuth:
        """Return the partner signature. Raises `SettingsError` naming what is missing or wrong."""
        self._check(DOCUMENTS)
        names = ("PARTNER_CLIENT_ID", "SECRET_KEY", "STORE_CLIENT_ID", "STORE_TOKEN")
        given: dict[str, Any] = {name.lower(): self.get(DOCUMENTS, name) for name in names}
        return _built(lambda: HmacAuth(**given, rules=self._rules()), DOCUMENTS)

    def client(self) -> Auth:
        """Return the bearer token or the client of service B. Raises `SettingsError` as `partner` does."""
        self._check(INVOICES)
        token = self.get(INVOICES, "TOKEN")
        if token is not None:
            return _built(lambda: StaticToken(token), INVOICES)
        names = ("CLIENT_ID", "CLIENT_SECRET", "TENANT_CONNECTION_CODE", "SCOPE")
        given: dict[str, Any] = {name.lower(): self.get(INVOICES, name) for name in names}
        if path := self.get(INVOICES, "TOKEN_PATH"):
            given["path"] = path
        return _built(lambda: OAuthClientCredentials(**given), INVOICES)

    def names(self) -> WireNames:
        """Return the JSON names of service B. Raises `SettingsError` for one that is not known."""
        return _built(lambda: WireNames(**self._fields("NAMES", WireNames())), INVOICES)

    def endpoints(self) -> Endpoints:
        """Return the paths of service B. Raises `SettingsError` for one that is not known."""
        return _built(lambda: Endpoints(**self._fields("ENDPOINTS", Endpoints())), INVOICES)

    def documents(self, pace: Pace | None = None, **options: Any) -> Session:
        """Return a session with service A; `options` are those of `Session`."""
        return self._session(DOCUMENTS, self.partner(), pace, **options)

    def invoices(self, pace: Pace | None = None, **options: Any) -> Session:
        """Return a session with service B; `options` are those of `Session`."""
        return self._session(INVOICES, self.client(), pace, **options)

    def e_invoices(self, session: Session, *, rounding: Decimal | None = None) -> AsyncInvoices:
        """Return the e-invoices of service B, with its names and paths."""
        return AsyncInvoices(session, names=self.names(), endpoints=self.endpoints(), rounding=rounding)

    def _session(self, service: Service, auth: Auth, pace: Pace | None, **options: Any) -> Session:
        url = self.base_url(service)
        self.network.check()
        if pace is not None:
            try:
                options |= {"limits": pace.limits, "retry": pace.retry}
            except ValueError as error:
                raise SettingsError(f"pace: {error}") from None
        return _built(lambda: Session(url, auth=auth, transport=self.network.transport, **options), service)

    def _check(self, service: Service) -> None:
        for variable in service.variables:
            if fault := credential_fault(self.get(service, variable.name) or ""):
                raise SettingsError(f"{service.name(variable)} {fault}", hint="Write it again, without that.")
        missing = self.missing(service)
        if missing:
            raise SettingsError(
                f"not set: {', '.join(missing)}",
                hint="Set it in the environment or in the file of settings (--env-file); see `invoicing-async doctor`.",
            )

    def _rules(self) -> SigningRules:
        rules = SigningRules(
            full_path=self._switch("SIGN_FULL_PATH"),
            include_query=self._switch("SIGN_QUERY"),
        )
        prefix = self.get(DOCUMENTS, "SIGNATURE_PREFIX")
        return rules if prefix is None else evolve(rules, prefix=prefix)

    def _switch(self, name: str) -> bool:
        value = self.get(DOCUMENTS, name) or "false"
        if value.lower() not in _YES:
            raise SettingsError(f"{DOCUMENTS.prefix}{name} must be true or false")
        return _YES[value.lower()]

    def _fields(self, name: str, default: AttrsInstance) -> dict[str, Any]:
        """Read `field=value,…` as the fields of such a value."""
        known = fields_dict(type(default))
        given: dict[str, Any] = {}
        for part in filter(str.strip, (self.get(INVOICES, name) or "").split(",")):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in known:
                raise SettingsError(f"{INVOICES.prefix}{name}: {key!r} is none of {', '.join(known)}")
            given[key] = _YES.get(value.lower(), value) if isinstance(known[key].default, bool) else value
        return given


def _built(make: Callable[[], T], service: Service) -> T:
    try:
        return make()
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"a setting of {service.prefix}… is wrong: {error}") from error


def trust_only(file: str | PathLike[str]) -> SSLContext:
    """Return the context that trusts the certificates of a PEM file, and no others.

    Raises `SettingsError` for a file that cannot be read or holds no certificate.
    """
    try:
        return create_default_context(cafile=file)
    except (OSError, ValueError) as error:  # what ssl raises for a file that holds no certificate is an OSError too
        reason = "holds no certificate in PEM form" if isinstance(error, SSLError) else error
        raise SettingsError(f"{file}: {getattr(reason, 'strerror', None) or reason}") from None


def _read(file: Path) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"cannot read the settings of {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the settings of {file} are not UTF-8 text") from None
    values: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            if (found := _LINE.fullmatch(line)) is None:
                # The line itself is not shown: it may hold a secret.
                raise SettingsError(f"{file} line {number}: must be NAME=VALUE or a comment that begins with #")
            values[found[1]] = _unquoted(found[2])
    return values


def _unquoted(value: str) -> str:
    """Take off one pair of quotes, or a comment after white space behind a value without quotes."""
    if value[:1] in {'"', "'"} and (end := value.find(value[0], 1)) > 0:
        return value[1:end]
    return re.split(r"\s+#", value, maxsplit=1)[0].strip()
