"""A session as the environment describes it: from where each value is taken, and every fault at once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from cli_screens import client, partner

from invoicing_async import (
    AsyncInvoices,
    Endpoints,
    HmacAuth,
    Limits,
    OAuthClientCredentials,
    OrderDocuments,
    Session,
    Settings,
    SettingsError,
    WireNames,
)
from invoicing_async.drafts import example_draft
from invoicing_async.sandbox import Sandbox, SandboxCredentials
from invoicing_async.session._session import internals_of

pytestmark = pytest.mark.usefixtures("no_settings")


def put(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_either_service_is_described_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, partner() | client())
    documents, invoices = Session.from_env("documents"), Session.from_env("invoices", limits=Limits(concurrency=3))
    assert (documents.base_url, documents.auth) == ("https://host/api/v1", HmacAuth(**SandboxCredentials().partner()))
    assert (invoices.base_url, type(invoices.auth)) == ("https://host/api", OAuthClientCredentials)
    assert invoices.limits.concurrency == 3


def test_a_session_of_a_kind_of_ones_own_is_of_that_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Session):
        """A subclass."""

    put(monkeypatch, partner())
    assert type(Mine.from_env("documents")) is Mine


def test_a_file_is_read_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An `.env` that lies in the working folder is not; the environment goes before the file."""
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in partner().items()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="no file of settings is named"):
        Session.from_env("documents")
    assert Session.from_env("documents", env_file=".env").base_url == "https://host/api/v1"
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "https://other/api/v1")
    monkeypatch.setenv("INVOICING_ENV_FILE", str(file))
    assert Session.from_env("documents").base_url == "https://other/api/v1"


@pytest.mark.asyncio
async def test_the_sandbox_may_be_what_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option goes before the settings."""
    put(monkeypatch, partner())
    session = Session.from_env("documents", transport=Sandbox())
    async with session, OrderDocuments(session).open("order-1") as document:
        assert document.size


@pytest.mark.asyncio
async def test_an_option_that_is_given_goes_before_the_settings() -> None:
    """However the session is made: what the settings would have given does not meet it."""
    sandbox, limits = Sandbox(), Limits(concurrency=2)
    loaded = Settings.load(environ=partner() | client() | {"INVOICING_PROXY": "http://proxy:3128"})
    for made in (
        loaded.documents(transport=sandbox, limits=limits),
        loaded.invoices(transport=sandbox, limits=limits),
        loaded.session("documents", Session, transport=sandbox, limits=limits),
    ):
        assert made.limits == limits
        async with made:
            assert internals_of(made).transport is sandbox


def test_the_names_and_paths_of_the_settings_are_those_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft is sent under the names that are set, also by `AsyncInvoices(session)`; an argument goes before them."""
    put(monkeypatch, client(names="payment_method=paymentMethod", endpoints="status_method=GET"))
    session = Session.from_env("invoices")
    assert b"paymentMethod" in AsyncInvoices(session).encode(example_draft(1))
    assert b"payMethod" in AsyncInvoices(session, names=WireNames(payment_method="payMethod")).encode(example_draft(1))
    assert internals_of(session).preset(Endpoints).status_method == "GET"
    plain = Session("https://host/api", auth=session.auth)
    assert b"payment_method" in AsyncInvoices(plain).encode(example_draft(1))


def test_every_fault_is_told_at_once_with_where_it_was_looked_for(tmp_path: Path) -> None:
    """Of both what is missing and what is wrong, by the line that sets it; no value is shown."""
    file = tmp_path / "live.env"
    file.write_text(
        "INVOICING_DOCUMENTS_BASE_URL=sk_live_oops\nINVOICING_DOCUMENTS_SIGN_QUERY=perhaps\n"
        "INVOICING_DOCUMENTS_STORE_TOKEN='stkn with space'\nINVOICING_DOCUMENTS_STORE_CLIENT_ID=s\n"
    )
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, {"INVOICING_PROXY": "http://pro xy"}).documents()
    error = caught.value
    missing = "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID, INVOICING_DOCUMENTS_SECRET_KEY"
    absolute = "must be an absolute http or https URL, such as https://host/api/v1"
    assert error.faults == (
        f"not set: {missing} (looked for in the environment and {file})",
        f"INVOICING_DOCUMENTS_SIGN_QUERY must be true or false (set in {file} line 2)",
        f"INVOICING_DOCUMENTS_BASE_URL {absolute} (set in {file} line 1)",
        "INVOICING_PROXY must name a host, as http://host:port, without blanks",
    )
    assert str(error) == "; ".join(error.faults)
    assert "sk_live" not in str(error)
    assert "stkn" not in str(error)
    assert "--env-file" in error.hint
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.faults, copy.hint) == (error.faults, error.hint)


def test_the_names_and_paths_are_judged_with_the_rest() -> None:
    """A session of service B is not made with names that no draft could be sent under."""
    with pytest.raises(SettingsError) as caught:
        Settings(client(names="bogus=x", endpoints="status=/v2", client_secret="")).invoices()
    named = ("CLIENT_SECRET", "INVOICING_INVOICES_NAMES part 1", "INVOICING_INVOICES_ENDPOINTS")
    assert [part in fault for part, fault in zip(named, caught.value.faults, strict=True)] == [True] * 3


@pytest.mark.parametrize("service", ["document", "", None, "DOCUMENTS"])
def test_a_service_that_is_none_is_refused(service: Any) -> None:
    with pytest.raises(ValueError, match="service must be 'documents' or 'invoices'"):
        Session.from_env(service)
