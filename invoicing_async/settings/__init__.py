"""Settings and credentials from the environment, or from a file of `NAME=VALUE` lines, as the command line takes them.

Every point that the services' documents leave open is a variable here, so that live keys need no patch.

    settings = Settings.load(env_file="invoicing.env")
    async with settings.documents() as session:
        async for outcome in OrderDocuments(session).download_many(order_ids, "invoices"): ...

`Session.from_env("documents", env_file=...)` is the same in one step. `DOCUMENTS` and `INVOICES` list the variables of
either service. What is missing or wrong is one `SettingsError`, which names each variable and where it was looked for,
and never shows a value; `findings` says all of it at once, before anything is called, `ask_services` what the
services answer to calls that change nothing.

Two kept libraries read settings into attrs classes and were not taken. Of typed-settings (26.0.0) an error quotes the
value that is wrong, which may be a secret, and its files of `NAME=VALUE` lines need python-dotenv; environ-config
(26.1.0) reads no file and names one missing variable at a time. Neither says which line of a file a value is from,
nor that one variable makes three others unnecessary; and the core has four dependencies, which this would make five.

- `_variables`: The variables of both services: their names, what each means, and what holds where it is not set.
- `_env_file`: A file of settings, as shells and service managers read them too.
- `_network`: How the network is reached: the proxy, and the authorities that are trusted.
- `_settings`: What is set, where it came from, and the sessions that it describes.
- `_checks`: What the settings amount to: what is missing, misspelled or wrong, before anything is called.
- `_program`: What is installed, and who may read the file of the settings.
- `_online`: Whether the services answer, what time they have, and whether they accept the credentials.
- `_harmless`: What the services say to calls that can do no harm, and what to change if they refuse them.
"""

from __future__ import annotations

from ._checks import Finding, Grade, findings
from ._network import Network, trust_only
from ._online import ask_services
from ._program import program_findings
from ._settings import Pace, Settings
from ._variables import CA_FILE, DOCUMENTS, ENV_FILE, INVOICES, PROXY, Service, SettingsError, Variable

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
    "program_findings",
    "trust_only",
]
