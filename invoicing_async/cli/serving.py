"""The sandbox on real ports of this machine, for `sandbox` and `demo`."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from attrs import frozen

from ..sandbox import Sandbox
from ..settings import DOCUMENTS, INVOICES
from .exits import CommandError

__all__ = ["Served", "served", "variables"]

DOCUMENTS_PATH = "/api/v1"
INVOICES_PATH = "/api"
PORTS = (errno.EADDRINUSE, errno.EACCES)
"""What another port helps against."""


@frozen
class Served:
    """Where the services are."""

    documents: str
    invoices: str


@asynccontextmanager
async def served(
    sandbox: Sandbox, *, host: str = "127.0.0.1", documents_port: int = 0, invoices_port: int = 0
) -> AsyncIterator[Served]:
    """Serve both services while the block runs; port 0 takes a free one. Raises `CommandError` for a taken port."""
    both = ((DOCUMENTS_PATH, documents_port, "--documents-port"), (INVOICES_PATH, invoices_port, "--invoices-port"))
    urls: list[str] = []
    async with AsyncExitStack() as stack:
        for base_path, port, option in both:
            try:
                urls.append(await stack.enter_async_context(sandbox.serve(base_path=base_path, host=host, port=port)))
            except OSError as error:
                text = f"cannot serve the sandbox on port {port} of {host}: {error.strerror or error}"
                hint = f"{option} names another port; 0 takes a free one." if error.errno in PORTS else ""
                raise CommandError(text, hint=hint) from error
        yield Served(*urls)


def variables(sandbox: Sandbox, where: Served) -> dict[str, str]:
    """Return the settings that reach the sandbox; its secrets are none."""
    credentials = sandbox.credentials
    partner = {DOCUMENTS.prefix + name.upper(): value for name, value in credentials.partner().items()}
    client = {INVOICES.prefix + name.upper(): value for name, value in credentials.client().items()}
    return {
        f"{DOCUMENTS.prefix}BASE_URL": where.documents,
        **partner,
        f"{INVOICES.prefix}BASE_URL": where.invoices,
        **client,
    }
