"""The recipe for code without an event loop, as a script, a threaded server and a prefork worker use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import Forked
from served import serving_sandbox, whole
from without_a_loop import Invoices, save_invoice

from invoicing_async import Auth, HmacAuth, SavedDocument
from invoicing_async.sandbox import NotEligible, Sandbox, demo_orders

ORDERS = demo_orders(6)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    """Where the sandbox is served, by a thread of its own."""
    with serving_sandbox(sandbox) as variables:
        yield variables["INVOICING_DOCUMENTS_BASE_URL"]


@pytest.fixture
def auth(sandbox: Sandbox) -> Auth:
    return HmacAuth(**sandbox.credentials.partner())


@pytest.mark.usefixtures("collected")
def test_two_calls_in_a_row_each_have_their_own_loop(base_url: str, auth: Auth, tmp_path: Path) -> None:
    saved = [save_invoice(base_url, auth, order, str(tmp_path)) for order in ORDERS[:2]]
    assert all(whole(document.path) for document in saved)


@pytest.mark.usefixtures("collected")
def test_threads_do_not_meet(base_url: str, auth: Auth, tmp_path: Path) -> None:
    """Each call and each thread's own session, all at once."""

    def work(order: str) -> tuple[SavedDocument, SavedDocument]:
        with Invoices(base_url, auth) as invoices:
            return save_invoice(base_url, auth, order, str(tmp_path)), invoices.save(order, str(tmp_path))

    with ThreadPoolExecutor(3) as threads:
        pairs = list(threads.map(work, ORDERS))
    assert all(whole(first.path) and first.path == second.path for first, second in pairs)


@pytest.mark.usefixtures("collected")
def test_a_kept_session_serves_call_after_call(sandbox: Sandbox, base_url: str, auth: Auth, tmp_path: Path) -> None:
    """An error of one is no matter to the next."""
    sandbox.script(ORDERS[0], [NotEligible()])
    with Invoices(base_url, auth) as invoices:
        with pytest.raises(Exception, match="ORDER_021"):
            invoices.save(ORDERS[0], str(tmp_path))
        assert all(whole(invoices.save(order, str(tmp_path)).path) for order in ORDERS)


def work_of_a_prefork_worker(base_url: str, auth: Auth, folder: str) -> None:
    """Call, then be forked as a worker is, and call in both."""
    save_invoice(base_url, auth, ORDERS[0], folder)
    child = os.fork()
    with Invoices(base_url, auth) as invoices:
        for order in ORDERS[1:3] if child else ORDERS[3:5]:
            invoices.save(order, folder)
    save_invoice(base_url, auth, ORDERS[5], folder)
    if child:
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.process
def test_a_worker_that_was_forked_works_as_its_parent(base_url: str, auth: Auth, tmp_path: Path) -> None:
    with Forked(work_of_a_prefork_worker, base_url, auth, str(tmp_path)) as process:
        _, said = process.communicate(20)
        assert (process.returncode, said) == (0, b"")
    assert len([path for path in tmp_path.glob("*.pdf") if whole(path)]) == len(ORDERS)
