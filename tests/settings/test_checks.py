"""What settings amount to: what is missing, misspelled or off, and whether the services answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cli_screens import client, partner

from invoicing_async import settings as configured
from invoicing_async.sandbox import Sandbox
from invoicing_async.settings import Settings, _online, ask_services

pytestmark = pytest.mark.usefixtures("no_settings")


def findings(values: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {found.subject: (found.grade, found.text) for found in configured.findings(configured.Settings(values))}


def test_findings_name_what_is_missing_and_what_is_misspelled() -> None:
    """Each variable is set or not; nothing of a value is shown."""
    assert findings({})["all"][0] == "bad"
    found = findings(partner(store_token="", secret_key=" padded ") | {"INVOICING_DOCUMENTS_STORE_TOKN": "x"})
    assert found["INVOICING_DOCUMENTS_STORE_TOKEN"] == ("bad", "not set: x-store-token")
    assert found["INVOICING_DOCUMENTS_SECRET_KEY"][0] == "note"
    assert found["INVOICING_DOCUMENTS_STORE_TOKN"][0] == "bad"
    assert found["all"] == ("note", "nothing of INVOICING_INVOICES_… is set")
    assert "settings" not in found
    assert findings(client())["settings"] == ("ok", "complete")
    assert findings(client(names="x=y"))["settings"][0] == "bad"
    for host, grade in (("127.0.0.1", "ok"), ("localhost", "ok"), ("h.test", "bad"), ("10.0.0.1", "bad")):
        found = findings(client(base_url=f"http://{host}/api"))
        assert found.get("base URL", found.get("settings", ("", "")))[0] == grade


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
        ("online", "ok"), ("clock", "ok"), ("online", "ok"), ("clock", "ok"), ("token", "ok"),
    ]  # fmt: skip
    alone = {name: value for name, value in settings.values.items() if "DOCUMENTS" in name}
    assert len(await ask_services(Settings(alone))) == 2
    gone = Settings(alone | {"INVOICING_DOCUMENTS_BASE_URL": "http://127.0.0.1:9"})
    assert [(one.subject, one.grade) for one in await ask_services(gone)] == [("online", "bad")]
    assert await ask_services(Settings({})) == []
