"""Settings: from the environment and a file, each fault named and no secret shown."""

from __future__ import annotations

from pathlib import Path
from ssl import create_default_context
from traceback import format_exception

import pytest
import trustme
from cli_screens import client, partner

from invoicing_async import (
    HmacAuth,
    Limits,
    OAuthClientCredentials,
    RetryPolicy,
    Session,
    StaticToken,
)
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.runs import RunPace
from invoicing_async.sandbox import SandboxCredentials
from invoicing_async.settings import DOCUMENTS, Settings, SettingsError, findings, trust_only

pytestmark = pytest.mark.usefixtures("no_settings")


def test_a_settings_file_is_read_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """Comments, quotes and `export` are understood; a variable that is set wins."""
    file = tmp_path / "env"
    file.write_text(
        "\ufeff# a comment\n\nexport INVOICING_DOCUMENTS_SECRET_KEY='a b # c'  # quoted\n"
        'INVOICING_DOCUMENTS_STORE_TOKEN = "tok"\nINVOICING_DOCUMENTS_BASE_URL=http://file # why\n'
        "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID='of\ntwo lines'\n",
        encoding="utf-8",
    )
    environment = {"INVOICING_ENV_FILE": str(file), "INVOICING_DOCUMENTS_BASE_URL": "http://real", "OTHER": "x"}
    found = Settings.load(None, environment)
    assert found.get(DOCUMENTS, "SECRET_KEY") == "a b # c"
    assert found.get(DOCUMENTS, "STORE_TOKEN") == "tok"
    assert found.get(DOCUMENTS, "PARTNER_CLIENT_ID") == "of\ntwo lines"
    assert found.base_url(DOCUMENTS) == "http://real"
    assert "tok" not in repr(found)
    assert Settings.load(file, {}).base_url(DOCUMENTS) == "http://file"


def test_a_bad_settings_file_names_the_line_and_does_not_show_it(tmp_path: Path) -> None:
    """A line may hold a secret, so an error has its number only."""
    file = tmp_path / "env"
    file.write_text("A=1\nsk_live_secret\n")
    with pytest.raises(SettingsError, match=r"env line 2: must be NAME=VALUE") as caught:
        Settings.load(file, {})
    assert "sk_live" not in str(caught.value)
    file.write_bytes(b"A=\xff\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        Settings.load(file, {})


def test_the_open_points_of_the_signature_are_settings() -> None:
    """Prefix, path and query of the signed text need no patch; an empty prefix counts."""
    assert Settings.load(None, partner()).partner() == HmacAuth(**SandboxCredentials().partner())
    changed = partner(signature_prefix="", sign_full_path="yes", sign_query="TRUE")
    rules = Settings.load(None, changed).partner().rules
    assert (rules.prefix, rules.full_path, rules.include_query) == ("", True, True)
    with pytest.raises(SettingsError, match="INVOICING_DOCUMENTS_SIGN_QUERY must be true or false"):
        Settings.load(None, partner(sign_query="perhaps")).partner()


def test_the_open_points_of_the_einvoices_are_settings() -> None:
    """Token path, scope, JSON names and endpoints are variables."""
    changed = client(
        scope="all",
        token_path="/token",
        names="payment_method=paymentMethod, nested_submit_to_tax=true",
        endpoints="status_method=GET,status=/v2/requests/{}",
    )
    found = Settings.load(None, changed)
    auth = found.client()
    assert isinstance(auth, OAuthClientCredentials)
    assert (auth.scope, auth.path) == ("all", "/token")
    assert found.names() == WireNames(payment_method="paymentMethod", nested_submit_to_tax=True)
    assert (found.endpoints().status_method, found.endpoints().status) == ("GET", "/v2/requests/{}")
    assert repr(found.invoices()) == repr(Session("https://host/api", auth=auth))
    with pytest.raises(SettingsError, match="NAMES part 2 must be one of is_promotion"):
        Settings.load(None, client(names="emails=x,bogus=x")).names()
    with pytest.raises(SettingsError, match="distinct"):
        Settings.load(None, client(names="emails=x,automatic=x")).names()


def test_a_token_makes_the_client_unnecessary() -> None:
    """Either the three of a client or one bearer token is enough, and what is missing is named."""
    token = {"INVOICING_INVOICES_BASE_URL": "http://h", "INVOICING_INVOICES_TOKEN": "t"}
    assert isinstance(Settings.load(None, token).client(), StaticToken)
    missing = client(client_secret="")
    with pytest.raises(SettingsError, match=r"^not set: INVOICING_INVOICES_CLIENT_SECRET \(looked"):
        Settings.load(None, missing).client()


@pytest.mark.parametrize(
    "changed",
    [partner(store_token="stkn with space"), partner(base_url="sk_live_oops"), partner(base_url="http://")],
    ids=["space", "no URL", "no host"],
)
def test_a_wrong_setting_is_named_without_its_value(changed: dict[str, str]) -> None:
    """Whatever stands in a variable, its value is not shown where it could be a secret."""
    with pytest.raises(SettingsError, match="INVOICING_DOCUMENTS_") as caught:
        Settings.load(None, changed).documents()
    assert "sk_live" not in str(caught.value)
    assert "stkn" not in str(caught.value)


CANARY = "Canary7"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (f"INVOICING_{service}_BASE_URL", url)
            for service in ("DOCUMENTS", "INVOICES")
            for url in (
                f"https://h/api?token={CANARY}", f"https://h/#{CANARY}", f"https://[{CANARY}", f"https://u:{CANARY}@h",
                f"https://h:{CANARY}/", f"https://h/\u20ac{CANARY}", f"https://h /{CANARY}", f"ftp://{CANARY}", CANARY,
            )
        ),
        *(
            ("INVOICING_INVOICES_ENDPOINTS", text)
            for text in (f"status={CANARY}", f"status=/{{}}{{}}{CANARY}", f"status_method={CANARY}", f"{CANARY}=/x")
        ),
        *(
            ("INVOICING_INVOICES_NAMES", text)
            for text in (
                CANARY, f"emails={CANARY},payment_method={CANARY}", f"nested_submit_to_tax={CANARY}",
                f"emails=\0{CANARY}",
            )
        ),
        ("INVOICING_INVOICES_TOKEN_PATH", f"https://elsewhere/{CANARY}"),
        ("INVOICING_DOCUMENTS_SIGN_QUERY", CANARY),
        ("INVOICING_DOCUMENTS_SIGNATURE_PREFIX", f"{CANARY}\n"),
        ("INVOICING_PROXY", f"socks5://u:{CANARY}@h"),
    ],
)  # fmt: skip
def test_no_error_shows_a_value_or_hides_its_variable(name: str, value: str) -> None:
    """Neither does what led to it, nor what `doctor` says: a secret may stand in any variable by mistake."""
    settings = Settings.load(None, {**partner(), **client(), name: value})
    with pytest.raises(SettingsError) as caught:
        (settings.documents if "DOCUMENTS" in name else settings.invoices)()
    shown = "".join(format_exception(caught.value))
    assert (CANARY in shown, name in str(caught.value)) == (False, True)
    told = [finding for finding in findings(settings) if finding.grade == "bad"]
    assert told
    assert CANARY not in repr(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INVOICING_INVOICES_BASE_URL", "http://[::1]:8080/a%20b/"),
        ("INVOICING_INVOICES_BASE_URL", "https://h\u00f6st.example/api"),
        ("INVOICING_INVOICES_TOKEN_PATH", "/oauth/token"),
        ("INVOICING_INVOICES_ENDPOINTS", "status_method=GET, status=/s/{}"),
        ("INVOICING_INVOICES_NAMES", "nested_submit_to_tax=No"),
        ("INVOICING_INVOICES_NAMES", "nested_submit_to_tax=ON,emails=Emails"),
    ],
)
def test_what_is_right_is_taken(name: str, value: str) -> None:
    Settings.load(None, {**client(), name: value}).invoices()


def test_a_file_of_authorities_is_trusted_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(trustme.CA().cert_pem.bytes())
    for found in (Settings.load(None, {}, ca=trust_only(file)), Settings.load(None, {"INVOICING_CA_FILE": str(file)})):
        assert found.network.ca is not None
        assert len(found.network.ca.get_ca_certs()) == 1
    assert Settings.load(None, {}).network.ca is None


def test_no_setting_shows_a_proxys_password() -> None:
    settings = Settings.load(None, {"INVOICING_PROXY": "http://clerk:hush-of-the-proxy@proxy"})
    assert "hush" not in repr(settings) + repr(settings.network)
    assert settings.network.way_to("http://service.test") == "http://proxy"
    assert settings.unknown() == ()
    with pytest.raises(SettingsError) as caught:
        Settings.load(None, {"INVOICING_PROXY": "http://clerk:hush-of-the-proxy@pro xy"}).network.check()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no certificate\n"])
def test_a_file_without_a_certificate_is_named(tmp_path: Path, text: str) -> None:
    """Given by a program or by a variable, it is refused before anything is sent."""
    file = tmp_path / "ca.pem"
    file.write_text(text)
    for give in (lambda: trust_only(file), lambda: Settings.load(environ={"INVOICING_CA_FILE": str(file)})):
        with pytest.raises(SettingsError, match=r"ca\.pem: holds no certificate in PEM form"):
            give()
    with pytest.raises(SettingsError, match=r"absent\.pem: No such file"):
        trust_only(tmp_path / "absent.pem")


def test_what_a_program_gives_goes_before_the_variables(tmp_path: Path) -> None:
    """A proxy and a context of its own: what the variables name is not even looked at."""
    environ = {"INVOICING_PROXY": "http://other:1", "INVOICING_CA_FILE": "absent.pem"}
    context = create_default_context()
    network = Settings.load(environ=environ, proxy="http://clerk:pw@mine:2", ca=context).network
    assert network.ca is context
    assert network.way_to("http://service.test") == "http://mine:2"


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without `environ`, and the file that it names."""
    (tmp_path / "env").write_text("INVOICING_DOCUMENTS_BASE_URL=http://file\nINVOICING_DOCUMENTS_SECRET_KEY=k\n")
    monkeypatch.setenv("INVOICING_ENV_FILE", str(tmp_path / "env"))
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "http://real")
    found = Settings.load()
    assert found.base_url(DOCUMENTS) == "http://real"
    assert found.get(DOCUMENTS, "SECRET_KEY") == "k"
    with pytest.raises(SettingsError, match="cannot read the settings of absent: No such file"):
        Settings.load("absent")


def test_a_pace_out_of_bounds_is_refused() -> None:
    """Whatever makes the limits says which one, and the session is not made."""

    class Asked:
        retry = RetryPolicy()

        @property
        def limits(self) -> Limits:
            return Limits(concurrency=0)

    with pytest.raises(SettingsError, match=r"pace: Limits\.concurrency must be"):
        Settings(partner()).documents(Asked())
    session = Settings(partner()).documents(RunPace(concurrency=3))
    assert session.limits.concurrency == 3
