"""What tests of the command line share: screens without a terminal, and what was written on them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from invoicing_async.cli.terminal.output import Output
from invoicing_async.errors import ServiceUnavailableError
from invoicing_async.sandbox import SandboxCredentials

ANSI = "\x1b["


def memory_output(**options: Any) -> Output:
    return Output(out=Console(file=io.StringIO()), err=Console(file=io.StringIO()), **options)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def partner(**changed: str) -> dict[str, str]:
    values = {"base_url": "https://host/api/v1", **SandboxCredentials().partner(), **changed}
    return {f"INVOICING_DOCUMENTS_{name.upper()}": value for name, value in values.items()}


def client(**changed: str) -> dict[str, str]:
    values = {"base_url": "https://host/api", **SandboxCredentials().client(), **changed}
    return {f"INVOICING_INVOICES_{name.upper()}": value for name, value in values.items()}


def unavailable() -> ServiceUnavailableError:
    return ServiceUnavailableError("down", status=503, code="SYS_DEP_503")
