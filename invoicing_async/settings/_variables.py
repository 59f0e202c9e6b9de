"""The variables of both services: their names, what each means, and what holds where it is not set."""

from __future__ import annotations

from attrs import frozen

from ..session import ServiceName

__all__ = [
    "CA_FILE",
    "DEBUG",
    "DOCUMENTS",
    "ENV_FILE",
    "INVOICES",
    "LEDGER",
    "LOG",
    "PREFIX",
    "PROXY",
    "SERVICES",
    "WAIVER",
    "Service",
    "SettingsError",
    "Variable",
]

PREFIX = "INVOICING_"
ENV_FILE = "INVOICING_ENV_FILE"
"""The variable that names the file of settings."""
PROXY = "INVOICING_PROXY"
"""The variable with the URL of the proxy, its user and password included."""
CA_FILE = "INVOICING_CA_FILE"
"""The variable that names the PEM file of the authorities that are trusted."""
LOG = "INVOICING_LOG"
"""The variable that says what is logged: a level, and a file after a colon."""
DEBUG = "INVOICING_DEBUG"
"""The variable that, set to 1, has the command line show tracebacks."""

LEDGER = "INVOICING_LEDGER"
"""The variable with the address, and the password, of the database that runs are kept in: of the environment only."""
WAIVER = "INVOICING_LEDGER_WAIVE"
"""The variable by which tests let that database be one that may forget."""


class SettingsError(ValueError):
    """Settings are missing or wrong: `faults` has all of them, each naming its variable, and `hint` what to do.

    It never shows the value of a variable.
    """

    def __init__(self, *faults: str, hint: str = "") -> None:
        super().__init__("; ".join(faults))
        self.faults = faults
        self.hint = hint

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, ...], dict[str, str]]:
        return type(self), self.faults, {"hint": self.hint}


@frozen(kw_only=True)
class Variable:
    """One setting: the end of its name, and what it means. `instead` names the one that makes it unnecessary.

    `default` is what holds where it is not set, in words. `is_open` says that the services' documents leave it open.
    """

    name: str
    meaning: str
    secret: bool = False
    required: bool = False
    instead: str = ""
    default: str = ""
    is_open: bool = False


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
        Variable(
            name="SIGNATURE_PREFIX",
            meaning="what stands before the hex digits of the signature, may be empty",
            default="sha256=",
            is_open=True,
        ),
        Variable(
            name="SIGN_FULL_PATH",
            meaning="sign the base URL's own path too, true or false",
            default="false: the path below the base URL",
            is_open=True,
        ),
        Variable(
            name="SIGN_QUERY",
            meaning="sign the query string too, true or false; no documented call has one",
            default="false",
            is_open=True,
        ),
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
        Variable(name="SCOPE", meaning="the scope of a token", default="none"),
        Variable(name="TOKEN_PATH", meaning="where tokens are", default="/v2/oauth/token"),
        Variable(
            name="NAMES",
            meaning="JSON names, as payment_method=paymentMethod,…; WireNames lists them",
            default="is_promotion, has_tax_authority_code, payment_method, emails, is_send_mail, auto_submit_to_tax",
            is_open=True,
        ),
        Variable(
            name="ENDPOINTS",
            meaning="paths, as status_method=GET,status=/v2/…/{},…; Endpoints lists them",
            default="POST /v2/ob/invoices/by-request-id/{}",
            is_open=True,
        ),
    ),
)

SERVICES: dict[ServiceName, Service] = {"documents": DOCUMENTS, "invoices": INVOICES}
