"""What `sign` and `doctor` show: every stage of a signature, and what is missing, misspelled or off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_screens import partner
from places import signing_vectors
from served import SECRETS, Cli, json_lines

from invoicing_async import SigningRules
from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Outage, Sandbox
from invoicing_async.settings import _harmless

pytestmark = pytest.mark.usefixtures("no_settings")

VECTORS = signing_vectors()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_sign_shows_every_stage_of_the_vectors(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Body hash, base string, digest and header are those another tool computed; secrets are masked."""
    names = ("secret_key", "partner_client_id", "store_client_id", "store_token")
    if any(not vector.get(name) for name in names):
        return
    for name, value in partner(**{name: vector[name] for name in names}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "body").write_bytes(vector["body"].encode())
    tokens = ["sign", "--path", vector["path"], "--method", vector["method"], "--body", str(tmp_path / "body")]
    tokens += ["--timestamp", str(vector["timestamp_ms"])]
    assert run([*tokens, "--json"]) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    token = vector["store_token"]
    masked = vector["base_string"].replace(token, f"**** ({len(token)} characters)")
    assert found["base_string"] == masked
    assert found["body_sha256"] == vector["body_sha256"]
    assert found["hmac_sha256"] == vector["signature_hex"]
    assert found["headers"]["x-signature"] == vector["header"]
    assert run(tokens) == Exit.DONE
    out = capsys.readouterr().out
    for line in masked.split("\n"):
        assert f"     {line}\n" in out
    assert token not in out
    assert vector["secret_key"] not in out


def test_sign_refuses_what_it_cannot_sign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that is no path segment and a body that is not there are usage errors."""
    for name, value in partner(sign_full_path="true", signature_prefix="").items():
        monkeypatch.setenv(name, value)
    assert run(["sign", ".."]) == Exit.USAGE
    assert run(["sign", "--body", "absent"]) == Exit.USAGE
    assert run(["sign"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "/api/v1/partner/stores/orders/" in out
    assert "no prefix" in out


def test_doctor_online(
    services: Callable[..., Sandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks both base URLs and for a token; secrets are in nothing it says."""
    services()
    file = tmp_path / "env"
    file.write_text("# nothing\n")
    file.chmod(0o644)
    assert run(["doctor", "--online", "--env-file", str(file)]) == Exit.DONE
    out, err = capsys.readouterr()
    assert out.count(" ms (HTTP 404 is what its root answers, where nothing need be)") == 2
    assert "the client is accepted" in out
    assert "others on this machine may read it" in out
    for secret in SECRETS:
        assert secret not in out + err
    monkeypatch.setenv("INVOICING_INVOICES_CLIENT_SECRET", "wrong")
    assert run(["doctor", "--online", "--json"]) == Exit.SOME_LEFT
    found = {row["subject"]: row for row in json_lines(capsys.readouterr().out)}
    assert found["token"]["grade"] == "bad"
    monkeypatch.setenv("INVOICING_INVOICES_TOKEN", "t")
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "http://127.0.0.1:9")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT
    assert "refused" in capsys.readouterr().out
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "http://127.0.0.1:abc/api")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT
    assert "INVOICING_DOCUMENTS_BASE_URL must have a port from 1 to 65535" in capsys.readouterr().out
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "nonsense")
    monkeypatch.setenv("INVOICING_INVOICES_NAMES", "nonsense")
    monkeypatch.delenv("INVOICING_INVOICES_TOKEN")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT


def test_doctor_says_where_a_setting_came_from_and_what_to_change(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli
) -> None:
    """In the table, in JSON, and with --quiet only what is wrong and what to do."""
    services(rules=SigningRules(prefix=""))
    file = tmp_path / "env"
    file.write_text("\nINVOICING_DOCUMENTS_SIGN_QUERY=true\n")
    file.chmod(0o600)
    tokens = ("doctor", "--online", "--env-file", file)
    hint = "Set INVOICING_DOCUMENTS_SIGNATURE_PREFIX=: signed so, the same call passed."
    code, out, err = cli(*tokens)
    assert (code, err) == (Exit.SOME_LEFT, "")
    assert f"        {hint}\n" in out
    for name, said in (
        ("SECRET_KEY", "set, 23 characters  [the environment]"),
        ("SIGN_QUERY", f"[{file} line 2]"),
        ("SIGNATURE_PREFIX", "[default]"),
    ):
        line = next(line for line in out.splitlines() if f"INVOICING_DOCUMENTS_{name} " in line)
        assert line.endswith(said)
    code, out, err = cli(*tokens, "--json")
    found = {row["subject"]: row for row in json_lines(out) if row["section"] == "Order documents"}
    assert (found["signed call"]["hint"], found["INVOICING_DOCUMENTS_SIGN_QUERY"]["source"]) == (hint, f"{file} line 2")
    code, out, err = cli(*tokens, "--quiet")
    assert (code, out, len(err.splitlines()), err.splitlines()[1].strip()) == (Exit.SOME_LEFT, "", 2, hint)
    assert not any(secret in found_ for found_ in (out, err, repr(found)) for secret in SECRETS)


def test_doctor_proves_no_credential_during_an_outage(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is for the moment: no secret, right or wrong, is called right, and the exit code says so."""

    async def no_time(seconds: float) -> None: ...

    monkeypatch.setattr(_harmless._clock, "sleep", no_time)
    services().inject(Outage())
    for secret in (None, "sk_wrong"):
        if secret:
            monkeypatch.setenv("INVOICING_DOCUMENTS_SECRET_KEY", secret)
        code, out, _ = cli("doctor", "--online", "--json")
        found = {row["subject"]: row for row in json_lines(out)}
        assert (code, found["signed call"]["grade"], found["token"]["grade"]) == (Exit.SOME_LEFT, "bad", "bad")
        assert "not proved, the service is down" in cli("doctor", "--online", "--quiet")[2]
