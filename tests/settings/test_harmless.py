"""What the services' answers to calls that can do no harm say of the settings, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import dumps
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
import trustme
from cli_screens import client, partner
from served import SECRETS

from invoicing_async import SigningRules
from invoicing_async.sandbox import (
    Answer,
    ClockSkew,
    NotEligible,
    NotPdf,
    Operation,
    Outage,
    RateLimited,
    Reset,
    Sandbox,
    SandboxSettings,
    Unavailable,
)
from invoicing_async.settings import Finding, Network, Settings, _harmless, ask_services, trust_only
from invoicing_async.settings._harmless import NOBODYS

pytestmark = [pytest.mark.usefixtures("no_settings"), pytest.mark.asyncio]

PREFIX, PATH = "INVOICING_DOCUMENTS_SIGNATURE_PREFIX", "INVOICING_DOCUMENTS_SIGN_FULL_PATH"
A, B = "Order documents", "E-invoices"
JSON = {"Content-Type": "application/json"}


def refusal(status: int, code: str) -> Answer:
    """An error envelope."""
    said = {"success": False, "error": {"code": code, "message": "no"}}
    return Answer(status=status, headers=JSON, body=dumps(said).encode())


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before a call is made again, which take no time."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(_harmless._clock, "sleep", sleep)
    return waited


@asynccontextmanager
async def reaching(sandbox: Sandbox, *, ssl: SSLContext | None = None) -> AsyncIterator[dict[str, str]]:
    """The settings that reach a sandbox on a port."""
    async with sandbox.serve(base_path="/api", ssl=ssl) as url:
        yield {**partner(base_url=url), **client(base_url=url)}


def of(values: dict[str, str], name: str) -> dict[str, str]:
    """The settings of one service."""
    return {key: value for key, value in values.items() if name in key}


async def found(settings: Settings) -> dict[tuple[str, str], Finding]:
    findings = await ask_services(settings)
    for finding in findings:
        assert not any(secret in repr(finding) for secret in SECRETS)
    return {(finding.section, finding.subject): finding for finding in findings}


async def test_nothing_is_made_and_nothing_refused_where_all_is_right() -> None:
    """The service has the calls that can do no harm and no other; each is right, and what is not proved is said."""
    sandbox = Sandbox()
    async with reaching(sandbox) as values:
        told = await found(Settings(values))
    assert [finding.grade for finding in told.values() if finding.grade != "ok"] == ["note"]
    assert told[B, "JSON names"].grade == "note"
    assert sandbox.created == {}
    asked = {entry.path for entry in sandbox.log if entry.operation in {Operation.DOCUMENT, Operation.STATUS}}
    assert all(NOBODYS in path for path in asked)
    assert sandbox.counts[Operation.SUBMIT, 200] == 0


@pytest.mark.parametrize(
    ("rules", "changed"),
    [
        (SigningRules(prefix=""), {}),
        (SigningRules(full_path=True), {}),
        (SigningRules(), {PREFIX: "", PATH: "yes"}),
        (SigningRules(prefix="", full_path=True), {PREFIX: "hmac="}),
    ],
)
async def test_another_reading_of_the_signature_is_found(rules: SigningRules, changed: dict[str, str]) -> None:
    """Whatever the service takes, what is to be set for it is said; and it passes once it is set."""
    async with reaching(Sandbox(SandboxSettings(rules=rules))) as there:
        values = of(there, "DOCUMENTS") | changed
        finding = (await found(Settings(values)))[A, "signed call"]
        assert finding.grade == "bad"
        words = finding.hint.removeprefix("Set ").partition(":")[0].split(" and ")
        told = dict(word.split("=", 1) for word in words)
        assert (await found(Settings(values | told)))[A, "signed call"].grade == "ok"


async def test_a_wrong_secret_is_no_other_reading() -> None:
    """All are tried, and then the keys are named; of service B which of its variables the refusal speaks of."""
    wrong = {
        "INVOICING_DOCUMENTS_SECRET_KEY": "sk_wrong_here",
        "INVOICING_INVOICES_TENANT_CONNECTION_CODE": "other",
    }
    sandbox = Sandbox()
    async with reaching(sandbox) as there:
        values = there | wrong
        told = await found(Settings(values))
        assert told[A, "signed call"].grade == told[B, "token"].grade == "bad"
        assert "compare INVOICING_DOCUMENTS_PARTNER_CLIENT_ID, SECRET_KEY" in told[A, "signed call"].hint
        assert "signed with the prefix 'sha256='" in told[A, "signed call"].text
        assert "compare INVOICING_INVOICES_TENANT_CONNECTION_CODE" in told[B, "token"].hint
        assert (B, "status call") not in told
        assert "sk_wrong_here" not in repr(told)
        values["INVOICING_INVOICES_CLIENT_SECRET"] = "x"
        assert "compare INVOICING_INVOICES_CLIENT_ID and" in (await found(Settings(values)))[B, "token"].hint
        values["INVOICING_INVOICES_TOKEN"] = "stale"
        refused = (await found(Settings(values)))[B, "status call"]
        assert (refused.grade, "INVOICING_INVOICES_BASE_URL" in refused.hint) == ("bad", True)
    assert sandbox.created == {}


@pytest.mark.parametrize(
    "then",
    [Answer(status=502, body=b"bad gateway"), RateLimited(), Unavailable(), Reset(), NotPdf()],
    ids=lambda then: type(then).__name__,
)
async def test_an_answer_that_proves_nothing_is_no_other_reading(then: Any) -> None:
    """A signature is not said to pass because a gateway broke off, or because nobody looked at it."""
    refused = Answer(status=401, headers=JSON, body=b'{"success": false, "error": {"code": "AUTH_1", "message": "no"}}')
    sandbox = Sandbox()
    sandbox.script(NOBODYS, [refused, refused, *([then] * 20)])
    async with reaching(sandbox) as there:
        finding = (await found(Settings(of(there, "DOCUMENTS"))))[A, "signed call"]
    assert (finding.grade, "passed" in finding.hint) == ("bad", False)


async def test_a_gateway_that_breaks_off_is_no_other_method() -> None:
    sandbox = Sandbox()
    sandbox.script(NOBODYS, [Answer(status=404, body=b"no"), *([Answer(status=502, body=b"bad gateway")] * 8)])
    async with reaching(sandbox) as there:
        finding = (await found(Settings(of(there, "INVOICES"))))[B, "status call"]
    assert (finding.grade, "passed" in finding.hint) == ("bad", False)


async def test_a_wrong_base_url_is_named() -> None:
    """The service is there, and nobody at the path."""
    async with reaching(Sandbox()) as values:
        wrong = {
            f"INVOICING_{name}_BASE_URL": values[f"INVOICING_{name}_BASE_URL"] + "/v9"
            for name in ("DOCUMENTS", "INVOICES")
        }
        told = await found(Settings(values | wrong))
    assert told[B, "token"].grade == "bad"
    assert "INVOICING_INVOICES_BASE_URL has the path up to where /v2 begins" in told[B, "token"].hint


@pytest.mark.parametrize(
    ("answer", "grade", "said", "hint"),
    [
        (Answer(status=404, body=b"<h1>404 Not Found</h1>"), "bad", "nobody is at that", "BASE_URL has the path"),
        (Answer(status=404, headers=JSON, body=b"{}"), "bad", "nobody is at that", "BASE_URL has the path"),
        (Answer(status=403, headers=JSON, body=b"{}"), "bad", "not allowed", "permission"),
        (Answer(status=302, headers={"Location": "/login"}), "bad", "not the service's", "sign-in page"),
        (NotPdf(), "bad", "not the service's", "sign-in page"),
        (Reset(), "bad", "no whole answer", "network"),
        (RateLimited(), "bad", "not proved, too many calls", "again later"),
        (Answer(status=502, body=b"bad gateway"), "bad", "not proved, the service is down", "again later"),
        (Answer(status=500, headers=JSON, body=b'{"error": "x"}'), "bad", "not proved, the service", "again later"),
        (refusal(500, "SYS_001"), "bad", "not proved, the service is down", "again later"),
        (Unavailable(), "bad", "not proved, the service is down (it said: ", "again later"),
        (Unavailable(status=200), "bad", "not proved, the service is down (it said: ", "again later"),
        (refusal(400, "VALIDATION_001"), "note", "not proved, it was refused", "ask for one that there is"),
        (refusal(200, "ANY_1"), "note", "not proved, it was refused", "ask for one that there is"),
        (NotEligible(), "ok", "accepted; ", ""),
        (NotEligible(status=200), "ok", "accepted; ", ""),
        (refusal(422, "ORDER_002"), "ok", "accepted; ", ""),
        (
            Answer(headers={"Content-Type": "application/pdf"}, body=b"%PDF-1.7\nstartxref\n9\n%%EOF\n"),
            "ok",
            "accepted; ",
            "",
        ),
        (refusal(404, "ORDER_404"), "ok", "ORDER_404", ""),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
async def test_what_the_answer_to_the_signed_call_means(answer: object, grade: str, said: str, hint: str) -> None:
    sandbox = Sandbox()
    sandbox.script(NOBODYS, [answer] * 3)  # type: ignore[list-item] # each is one
    async with reaching(sandbox) as values:
        finding = (await found(Settings(of(values, "DOCUMENTS"))))[A, "signed call"]
    assert (finding.grade, said in finding.text, hint in finding.hint) == (grade, True, True)


@pytest.mark.parametrize("secret", ["right", "wrong"])
async def test_an_outage_proves_no_secret(secret: str, waits: list[float]) -> None:
    """A service that is down answers whoever asks; neither secret is called right, after three calls of each kind."""
    sandbox = Sandbox()
    sandbox.inject(Outage())
    async with reaching(sandbox) as there:
        wrong = {"INVOICING_DOCUMENTS_SECRET_KEY": "sk_wrong", "INVOICING_INVOICES_CLIENT_SECRET": "cs_wrong"}
        told = await found(Settings(there | (wrong if secret == "wrong" else {})))
    for at in ((A, "signed call"), (B, "token")):
        assert (told[at].grade, told[at].hint) == ("bad", _harmless.AGAIN)
        assert told[at].text.startswith("not proved, the service is down (")
    assert sandbox.calls(Operation.DOCUMENT) == 3
    assert sorted(waits) == sorted(_harmless.WAITS * 2)


@pytest.mark.parametrize("then", [Unavailable(), RateLimited(), Answer(status=502, body=b"bad gateway")])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("secret", "grade"), [({}, "ok"), ({"INVOICING_DOCUMENTS_SECRET_KEY": "sk_wrong"}, "bad")])
async def test_the_answer_after_one_for_the_moment_counts(
    then: Any, times: int, secret: dict[str, str], grade: str
) -> None:
    sandbox = Sandbox()
    sandbox.script(NOBODYS, [then] * times)
    async with reaching(sandbox) as there:
        finding = (await found(Settings(of(there, "DOCUMENTS") | secret)))[A, "signed call"]
    assert (finding.grade, "not proved" in finding.text) == (grade, False)
    assert ("look at the keys" in finding.hint) is (grade == "bad")


@pytest.mark.parametrize("status", [404, 405])
async def test_another_method_of_the_status_endpoint_is_found(status: int) -> None:
    """Where a POST meets nobody, a GET is tried; what else the setting has stays."""
    sandbox = Sandbox()
    found_ = Answer(headers=JSON, body=b'{"status": "NEW"}')
    sandbox.script(NOBODYS, [Answer(status=status, body=b"no"), found_])
    async with reaching(sandbox) as there:
        values = of(there, "INVOICES") | {"INVOICING_INVOICES_ENDPOINTS": "export=/e/{}"}
        finding = (await found(Settings(values)))[B, "status call"]
    assert (finding.grade, finding.hint) == (
        "bad",
        "Set INVOICING_INVOICES_ENDPOINTS=export=/e/{},status_method=GET: asked so, the same call passed.",
    )


async def test_a_clock_that_is_off_is_told_and_the_call_passes() -> None:
    """What is refused for its time is signed for the service's."""
    sandbox = Sandbox()
    sandbox.inject(ClockSkew(seconds=3600))
    async with reaching(sandbox) as values:
        told = await found(Settings(values))
    assert told[A, "clock"].grade == "bad"
    assert "behind the service" in told[A, "clock"].text
    assert told[A, "signed call"].grade == "ok"


async def test_a_proxy_and_authorities_are_named_where_they_are_in_the_way(tmp_path: Path) -> None:
    """A proxy that is not there; a certificate of nobody known, and then of one who is."""
    ca = trustme.CA()
    context = SSLContext(PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with reaching(Sandbox(), ssl=context) as values:
        assert "INVOICING_CA_FILE" in (await found(Settings(values)))[A, "online"].hint
        trusting = Network(None, trust_only(tmp_path / "ca.pem"))
        assert (await found(Settings(values, trusting)))[A, "signed call"].grade == "ok"
        behind = (await found(Settings(values, Network("http://127.0.0.1:9"))))[A, "online"]
    assert (behind.grade, "called through http://127.0.0.1:9: INVOICING_PROXY" in behind.hint) == ("bad", True)
    gone = (await found(Settings(partner(base_url="http://127.0.0.1:9"))))[A, "online"]
    assert (gone.grade, "It is INVOICING_DOCUMENTS_BASE_URL" in gone.hint) == ("bad", True)
