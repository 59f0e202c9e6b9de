"""The sandbox on real ports of this machine, for `sandbox` and `demo`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from attrs import frozen

from ..sandbox import Sandbox
from .exits import CommandError
from .input.settings import DOCUMENTS, INVOICES

__all__ = ["Served", "served", "variables"]

DOCUMENTS_PATH = "/api/v1"
INVOICES_PATH = "/api"


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
    documents = sandbox.serve(base_path=DOCUMENTS_PATH, host=host, port=documents_port)
    invoices = sandbox.serve(base_path=INVOICES_PATH, host=host, port=invoices_port)
    async with AsyncExitStack() as stack:
        try:
            where = Served(await stack.enter_async_context(documents), await stack.enter_async_context(invoices))
        except OSError as error:
            raise CommandError(f"cannot serve the sandbox: {error.strerror or error}") from error
        yield where


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
