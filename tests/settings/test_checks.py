"""What settings amount to: what is missing, misspelled or off, and whether the services answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import astuple
from cli_screens import client, partner
from served import SECRETS

from invoicing_async import Endpoints, OAuthClientCredentials, SigningRules, WireNames
from invoicing_async import settings as configured
from invoicing_async.sandbox import Sandbox
from invoicing_async.settings import DOCUMENTS, INVOICES, Settings, _online, ask_services

pytestmark = pytest.mark.usefixtures("no_settings")


def findings(values: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {found.subject: (found.grade, found.text) for found in configured.findings(configured.Settings(values))}


def test_findings_name_what_is_missing_and_what_is_misspelled() -> None:
    """Each variable is set or not; nothing of a value is shown."""
    assert findings({})["all"][0] == "bad"
    found = findings(partner(store_token="", secret_key=" padded ") | {"INVOICING_DOCUMENTS_STORE_TOKN": "x"})
    assert found["INVOICING_DOCUMENTS_STORE_TOKEN"] == ("bad", "not set: x-store-token")
    assert found["INVOICING_DOCUMENTS_SECRET_KEY"] == ("bad", "begins with white space (U+0020 SPACE)")
    assert found["INVOICING_DOCUMENTS_STORE_TOKN"][0] == "bad"
    assert found["all"] == ("note", "nothing of INVOICING_INVOICES_… is set")
    assert "settings" not in found
    assert findings(client())["settings"] == ("ok", "complete")
    assert findings(client(names="x=y"))["settings"][0] == "bad"
    for host, grade in (("127.0.0.1", "ok"), ("localhost", "ok"), ("h.test", "bad"), ("10.0.0.1", "bad")):
        found = findings(client(base_url=f"http://{host}/api"))
        assert found.get("base URL", found.get("settings", ("", "")))[0] == grade


def test_each_setting_tells_where_it_came_from_and_no_value_that_may_be_a_secret(tmp_path: Path) -> None:
    """A line of the file, the environment or the default; of a value its length, but for what is no secret."""
    file = tmp_path / "env"
    given = partner(sign_query="yes", signature_prefix="") | client(
        base_url="https://clerk:hush@h/api", names="emails=x"
    )
    file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    settings = configured.Settings.load(file, {"INVOICING_DOCUMENTS_SIGN_FULL_PATH": "true"})
    found = {one.subject: one for one in configured.findings(settings)}
    for subject, text, source in (
        ("DOCUMENTS_SECRET_KEY", "set, 23 characters", f"{file} line 3"),
        ("DOCUMENTS_BASE_URL", "https://host/api/v1", f"{file} line 1"),
        ("DOCUMENTS_SIGN_FULL_PATH", "true; left open by", "the environment"),
        ("DOCUMENTS_SIGNATURE_PREFIX", "''; left open by", f"{file} line 7"),
        ("INVOICES_NAMES", "emails=x; left open by", f"{file} line 12"),
        ("INVOICES_BASE_URL", "set, 24 characters", f"{file} line 8"),
        ("INVOICES_ENDPOINTS", "POST /v2/ob/invoices/by-request-id/{}; left", "default"),
    ):
        one = found[f"INVOICING_{subject}"]
        assert (one.text.startswith(text), one.source) == (True, source), one
    for secret in (*SECRETS, "hush"):
        assert secret not in repr(found)
    wrong = partner(signature_prefix="sk_live_in_the_wrong_place", sign_query="sk_live_too", base_url="sk_live_three")
    assert "sk_live" not in repr(list(configured.findings(configured.Settings(wrong | client(names="sk_live=")))))


def test_the_defaults_are_told_as_they_are() -> None:
    """The words beside the variables are those of the values that hold without them."""
    said = {variable.name: variable.default for variable in (*DOCUMENTS.variables, *INVOICES.variables)}
    assert said["SIGNATURE_PREFIX"] == SigningRules().prefix
    assert said["NAMES"] == ", ".join(name for name in astuple(WireNames()) if isinstance(name, str))
    assert said["ENDPOINTS"] == f"{Endpoints().status_method} {Endpoints().status}"
    auth = Settings(client()).client()
    assert isinstance(auth, OAuthClientCredentials)
    assert (said["TOKEN_PATH"], said["SCOPE"]) == (auth.path, str(auth.scope).lower())


@pytest.mark.parametrize(
    ("date", "apart"),
    [("Thu, 01 Jan 1970 00:01:40 GMT", 20.0), ("nonsense", None), (None, None)],
)
def test_clock_difference(date: str | None, apart: float | None) -> None:
    """The service's Date tells how far this machine's clock is ahead."""
    assert _online.clock_difference(date, 120.0) == apart


@pytest.mark.parametrize(
    ("date", "grade"),
    [(None, "note"), ("Thu, 01 Jan 1970 00:02:00 GMT", "ok"), ("Thu, 01 Jan 1970 00:01:00 GMT", "bad")],
)
def test_a_clock_that_is_off_is_found(date: str | None, grade: str) -> None:
    """A few seconds do not matter; more spoil a signature's timestamp."""
    found = _online._clocks(configured.DOCUMENTS, date, 120.0)
    assert found.grade == grade


@pytest.mark.asyncio
async def test_the_services_are_asked_whether_they_answer(services: Callable[..., Sandbox]) -> None:
    """Each that is set up, and the client's token; one that is not set up is left out, and none of it is an error."""
    services()
    settings = Settings.load()
    found = await ask_services(settings)
    assert [(one.subject, one.grade) for one in found] == [
        ("online", "ok"), ("clock", "ok"), ("signed call", "ok"),
        ("online", "ok"), ("clock", "ok"), ("token", "ok"), ("status call", "ok"), ("JSON names", "note"),
    ]  # fmt: skip
    alone = {name: value for name, value in settings.values.items() if "DOCUMENTS" in name}
    assert len(await ask_services(Settings(alone))) == 3
    gone = Settings(alone | {"INVOICING_DOCUMENTS_BASE_URL": "http://127.0.0.1:9"})
    assert [(one.subject, one.grade) for one in await ask_services(gone)] == [("online", "bad")]
    assert await ask_services(Settings({})) == []
