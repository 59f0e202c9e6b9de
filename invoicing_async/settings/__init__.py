"""Settings and credentials from the environment, or from a file of `NAME=VALUE` lines, as the command line takes them.

Every point that the services' documents leave open is a variable here, so that live keys need no patch.

    settings = Settings.load(env_file="invoicing.env")
    async with settings.documents() as session:
        async for outcome in OrderDocuments(session).download_many(order_ids, "invoices"): ...

`DOCUMENTS` and `INVOICES` list the variables of either service. What is missing or wrong is a `SettingsError`, which
names the variable and never shows its value; `findings` says all of it at once, before
anything is called, and `ask_services` whether the services answer.
"""

from __future__ import annotations

from ._checks import Finding, Grade, findings
from ._online import ask_services
from ._settings import (
    CA_FILE,
    DOCUMENTS,
    ENV_FILE,
    INVOICES,
    PROXY,
    Network,
    Pace,
    Service,
    Settings,
    SettingsError,
    Variable,
    trust_only,
)

__all__ = [
    "CA_FILE",
    "DOCUMENTS",
    "ENV_FILE",
    "INVOICES",
    "PROXY",
    "Finding",
    "Grade",
    "Network",
    "Pace",
    "Service",
    "Settings",
    "SettingsError",
    "Variable",
    "ask_services",
    "findings",
    "trust_only",
]
