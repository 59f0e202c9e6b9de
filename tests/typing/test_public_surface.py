"""What the public classes offer: what a user may call, each with its type, and nothing that only the library uses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import invoicing_async
from invoicing_async import AsyncInvoices, HmacAuth, OrderDocuments, Session, StaticToken
from invoicing_async.runs import DocumentRun, InvoiceRun

MODULES = [
    f"invoicing_async.{path.stem}"
    for path in sorted(Path(invoicing_async.__file__).parent.iterdir())
    if path.stem[0] != "_" and path.stem not in {"cli", "py"}
]
OFFERED = {
    Session: """
        auth base_url call close from_env health limits on_event open outage retry timeouts stop_waiting
        with_options""",
    OrderDocuments: "download download_many open",
    AsyncInvoices: "create encode export status submit submit_many wait wait_many",
    InvoiceRun: """
        add export export_name keep ledger limits open reconcile refresh remaining resolve retry run settings settle
        stop submit submit_one superseded undo""",
    DocumentRun: """
        add day differing download durable folder keep layout ledger limits move on_existing open place served_name
        settings stop verify""",
}
ANY = {
    "InvoiceDraft.extra": "what the service knows and this library does not",
    "SandboxCredentials.partner": "keyword arguments, of which a test may replace one",
    "SandboxCredentials.client": "as above",
    "Created.content": "the JSON that a test sent to the sandbox",
    "RecordedRequest.json": "as above",
    "Fault.memory": "a fault's own, which it gets back",
    "SampledFault.memory": "as above",
    "last_call": "what events are made of",
    "unchecked": "whatever a reader found, to be named as a fault",
    "converted": "as above",
}
"""Where a signature may say Any, and why."""


@pytest.mark.parametrize("kind", OFFERED, ids=lambda kind: kind.__name__)
def test_a_public_class_offers_what_a_user_may_call(kind: type) -> None:
    """What only the library's own modules use is had from `internals_of` and `work_of`."""
    offered = {name for name in dir(kind) if name[0] != "_"} | set(vars(made(kind)))
    assert {name for name in offered if name[0] != "_"} == set(OFFERED[kind].split())


def made(kind: type) -> object:
    """One of that class, or of a run, which would have to be opened, what has the attributes that its methods set."""
    session = Session("http://service.test", auth=StaticToken("t"))
    if kind is Session:
        return session
    if kind in {OrderDocuments, AsyncInvoices}:
        return kind(session)
    source = inspect.getsource(kind)
    found = type("Attributes", (), {})()
    vars(found).update(dict.fromkeys(re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", source)))
    return found


def test_settings_of_a_session_are_read_only() -> None:
    """Its lanes and places were made of them."""
    session: Any = Session("http://service.test", auth=HmacAuth(partner_client_id="p", secret_key="s"))
    for name in ("auth", "base_url", "limits", "on_event", "outage", "retry", "timeouts"):
        with pytest.raises(AttributeError):
            setattr(session, name, None)


def signatures(module: str) -> Iterator[tuple[str, str]]:
    """Each public name of a module, with the annotations that its users meet, as they are written."""
    for name in import_module(module).__all__:
        found = getattr(import_module(module), name)
        if inspect.isclass(found):
            for owner in found.__mro__:
                if owner.__module__.startswith("invoicing_async"):
                    yield from members(owner)
        elif callable(found):
            yield name, written(found)


def members(kind: type) -> Iterator[tuple[str, str]]:
    annotated = inspect.get_annotations(kind)
    for name, value in annotated.items():
        if name[0] != "_":
            yield f"{kind.__name__}.{name}", str(value)
    for name, value in vars(kind).items():
        if name[0] != "_" and name not in annotated:
            found = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            yield f"{kind.__name__}.{name}", written(found)


def written(found: object) -> str:
    return " ".join(map(str, getattr(inspect.unwrap(found), "__annotations__", {}).values())) if callable(found) else ""


@pytest.mark.parametrize("module", MODULES)
def test_a_public_signature_says_any_only_where_the_table_does(module: str) -> None:
    """Any lets every mistake pass; what a coroutine takes and is sent is nobody's concern."""
    said = {
        name for name, text in signatures(module) if re.search(r"\bAny\b", text.replace("Coroutine[Any, Any, ", ""))
    }
    assert said - set(ANY) == set()


def test_the_search_finds_any_where_it_is() -> None:
    found = dict(signatures("invoicing_async.models")) | dict(signatures("invoicing_async.session"))
    assert "Any" in found["InvoiceDraft.extra"]
    assert "RetryPolicy" in found["Session.call"]
    assert "Observer" in found["Session.on_event"]
