"""Settings of the command line: from the environment and a file, each fault named and no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_screens import client, partner

from invoicing_async import (
    HmacAuth,
    OAuthClientCredentials,
    Session,
    StaticToken,
)
from invoicing_async import settings as configured
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.cli.exits import CommandError
from invoicing_async.sandbox import SandboxCredentials

pytestmark = pytest.mark.usefixtures("no_settings")


def test_a_settings_file_is_read_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """Comments, quotes and `export` are understood; a variable that is set wins."""
    file = tmp_path / "env"
    file.write_text(
        "\ufeff# a comment\n\nexport INVOICING_DOCUMENTS_SECRET_KEY='a b # c'  # quoted\n"
        'INVOICING_DOCUMENTS_STORE_TOKEN = "tok"\nINVOICING_DOCUMENTS_BASE_URL=http://file # why\n'
        "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID='open\n",
        encoding="utf-8",
    )
    environment = {"INVOICING_ENV_FILE": str(file), "INVOICING_DOCUMENTS_BASE_URL": "http://real", "OTHER": "x"}
    found = configured.load(None, environment)
    assert found.get(configured.DOCUMENTS, "SECRET_KEY") == "a b # c"
    assert found.get(configured.DOCUMENTS, "STORE_TOKEN") == "tok"
    assert found.get(configured.DOCUMENTS, "PARTNER_CLIENT_ID") == "'open"
    assert found.base_url(configured.DOCUMENTS) == "http://real"
    assert "tok" not in repr(found)
    assert configured.load(file, {}).base_url(configured.DOCUMENTS) == "http://file"


def test_a_bad_settings_file_names_the_line_and_does_not_show_it(tmp_path: Path) -> None:
    """A line may hold a secret, so an error has its number only."""
    file = tmp_path / "env"
    file.write_text("A=1\nsk_live_secret\n")
    with pytest.raises(CommandError, match=r"env line 2: must be NAME=VALUE") as caught:
        configured.load(file, {})
    assert "sk_live" not in str(caught.value)
    file.write_bytes(b"A=\xff\n")
    with pytest.raises(CommandError, match="not UTF-8"):
        configured.load(file, {})


def test_the_open_points_of_the_signature_are_settings() -> None:
    """Prefix, path and query of the signed text need no patch; an empty prefix counts."""
    assert configured.load(None, partner()).partner() == HmacAuth(**SandboxCredentials().partner())
    changed = partner(signature_prefix="", sign_full_path="yes", sign_query="TRUE")
    rules = configured.load(None, changed).partner().rules
    assert (rules.prefix, rules.full_path, rules.include_query) == ("", True, True)
    with pytest.raises(CommandError, match="INVOICING_DOCUMENTS_SIGN_QUERY must be true or false"):
        configured.load(None, partner(sign_query="perhaps")).partner()


def test_the_open_points_of_the_einvoices_are_settings() -> None:
    """Token path, scope, JSON names and endpoints are variables."""
    changed = client(
        scope="all",
        token_path="/token",
        names="payment_method=paymentMethod, nested_submit_to_tax=true",
        endpoints="status_method=GET,status=/v2/requests/{}",
    )
    found = configured.load(None, changed)
    auth = found.client()
    assert isinstance(auth, OAuthClientCredentials)
    assert (auth.scope, auth.path) == ("all", "/token")
    assert found.names() == WireNames(payment_method="paymentMethod", nested_submit_to_tax=True)
    assert (found.endpoints().status_method, found.endpoints().status) == ("GET", "/v2/requests/{}")
    assert repr(found.invoices()) == repr(Session("https://host/api", auth=auth))
    with pytest.raises(CommandError, match="NAMES: 'bogus' is none of is_promotion"):
        configured.load(None, client(names="bogus=x")).names()
    with pytest.raises(CommandError, match="distinct"):
        configured.load(None, client(names="emails=x,automatic=x")).names()


def test_a_token_makes_the_client_unnecessary() -> None:
    """Either the three of a client or one bearer token is enough, and what is missing is named."""
    token = {"INVOICING_INVOICES_BASE_URL": "http://h", "INVOICING_INVOICES_TOKEN": "t"}
    assert isinstance(configured.load(None, token).client(), StaticToken)
    missing = client(client_secret="")
    with pytest.raises(CommandError, match=r"^not set: INVOICING_INVOICES_CLIENT_SECRET$"):
        configured.load(None, missing).client()


@pytest.mark.parametrize(
    "changed",
    [partner(store_token="stkn with space"), partner(base_url="sk_live_oops"), partner(base_url="http://")],
    ids=["space", "no URL", "no host"],
)
def test_a_wrong_setting_is_named_without_its_value(changed: dict[str, str]) -> None:
    """Whatever stands in a variable, its value is not shown where it could be a secret."""
    with pytest.raises(CommandError, match="INVOICING_DOCUMENTS_") as caught:
        configured.load(None, changed).documents()
    assert "sk_live" not in str(caught.value)
    assert "stkn" not in str(caught.value)
