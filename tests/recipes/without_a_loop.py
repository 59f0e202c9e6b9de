"""Invoices for code without an event loop: a script, a Django view, a Celery task."""

from __future__ import annotations

import asyncio
from typing import Self

from invoicing_async import Auth, OrderDocuments, SavedDocument, Session


def save_invoice(base_url: str, auth: Auth, order_id: str, folder: str) -> SavedDocument:
    """Save one invoice: a loop and a session of its own, from any thread of any process."""

    async def work() -> SavedDocument:
        async with Session(base_url, auth=auth) as session:
            return await OrderDocuments(session).download(order_id, folder)

    return asyncio.run(work())


class Invoices:
    """One session for many calls of one thread: its connections and its token are kept from call to call.

    A worker process makes its own after it was forked, as in Celery's `worker_process_init`.
    """

    def __init__(self, base_url: str, auth: Auth) -> None:
        self.runner = asyncio.Runner()
        self.session = Session(base_url, auth=auth)

    def __enter__(self) -> Self:
        self.runner.run(self.session.__aenter__())
        return self

    def save(self, order_id: str, folder: str) -> SavedDocument:
        return self.runner.run(OrderDocuments(self.session).download(order_id, folder))

    def __exit__(self, *_: object) -> None:
        with self.runner:
            self.runner.run(self.session.close())
