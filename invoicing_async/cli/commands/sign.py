"""`sign`: every stage of a signature, to compare with what the service expects; secrets are masked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from ..._core import signing
from ..._core.clock import RealClock
from ..._core.http import path as quoted
from ...auth import HmacAuth
from ..exits import CommandError, Exit
from ..input.options import Common
from ..input.settings import DOCUMENTS, Settings
from ..terminal.output import Screen, plain

__all__ = ["Stages", "mask", "sign"]

EXAMPLE = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
SECRETS = ("x-store-token",)


def mask(secret: str) -> str:
    """Show of a secret only how long it is."""
    return f"**** ({len(secret)} characters)"


@frozen(kw_only=True)
class Stages:
    """One signature, stage by stage (API.md A.2). `base_string` and `headers` hold the store token: mask it."""

    method: str
    path: str
    timestamp_ms: int
    body_sha256: str
    base_string: str
    digest: str
    headers: dict[str, str]

    @classmethod
    def of(cls, auth: HmacAuth, *, method: str, path: str, base_path: str, body: bytes, timestamp_ms: int) -> Stages:
        """Sign a request without sending it."""
        identity = auth.identity(timestamp_ms)
        signed = signing.signed_path(path, base_path=base_path, rules=auth.rules)
        body_hash = signing.body_sha256(body)
        text = signing.base_string(method, signed, headers=identity.items(), body_hash=body_hash)
        digest = signing.digest(auth.secret_key, text)
        return cls(
            method=method.upper(),
            path=signed,
            timestamp_ms=timestamp_ms,
            body_sha256=body_hash,
            base_string=text,
            digest=digest,
            headers={**identity, "x-signature": signing.header_value(digest, rules=auth.rules)},
        )

    def masked(self, text: str) -> str:
        """Give a text of these stages without secrets."""
        for name in SECRETS:
            if value := self.headers.get(name):
                text = text.replace(f"{name}:{value}", f"{name}:{mask(value)}")
        return text

    def shown_headers(self) -> dict[str, str]:
        """Give the headers without secrets."""
        return {name: mask(value) if name in SECRETS else value for name, value in self.headers.items()}


def sign(
    order_id: str = EXAMPLE,
    /,
    *,
    timestamp: int | None = None,
    method: str = "POST",
    path: str | None = None,
    body: Path | None = None,
    common: Common | None = None,
) -> int:
    """Print every stage of a signature, secrets masked; nothing is sent.

    Parameters
    ----------
    order_id
        Sign the request for this order's invoice.
    timestamp
        Epoch milliseconds; now by default.
    method
        The method, with --path.
    path
        Sign this path, as it is sent, instead of an order's.
    body
        Sign the bytes of this file as the body.
    """
    common = common or Common()
    settings = common.settings()
    auth = settings.partner()
    stages = Stages.of(
        auth,
        method=method,
        path=path if path is not None else _order_path(order_id),
        base_path=urlsplit(settings.base_url(DOCUMENTS)).path.rstrip("/"),
        body=_bytes(body),
        timestamp_ms=int(RealClock().now() * 1000) if timestamp is None else timestamp,
    )
    screen = Screen.of(common)
    screen.line(_row(stages))
    if not screen.json:
        _show(screen, stages, auth, settings)
    return Exit.DONE


def _order_path(order_id: str) -> str:
    try:
        return quoted("partner", "stores", "orders", order_id, "documents", "invoice")
    except ValueError as error:
        raise CommandError(f"order id: {error}") from None


def _bytes(body: Path | None) -> bytes:
    try:
        return b"" if body is None else body.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {body}: {error.strerror or error}") from None


def _row(stages: Stages) -> dict[str, object]:
    return {
        "method": stages.method,
        "path": stages.path,
        "timestamp_ms": stages.timestamp_ms,
        "body_sha256": stages.body_sha256,
        "base_string": stages.masked(stages.base_string),
        "hmac_sha256": stages.digest,
        "headers": stages.shown_headers(),
    }


def _show(screen: Screen, stages: Stages, auth: HmacAuth, settings: Settings) -> None:
    facts = (("base URL", settings.base_url(DOCUMENTS)), ("rules", _rules(auth)), ("secret key", mask(auth.secret_key)))
    screen.facts(facts)
    headers = "\n".join(f"{name}: {value}" for name, value in stages.shown_headers().items())
    for title, text in (
        ("1  SHA-256 of the body", stages.body_sha256),
        ("2  Base string: lines end with one \\n, the last with none", stages.masked(stages.base_string)),
        ("3  HMAC-SHA256 of it under the secret key, in hex", stages.digest),
        ("4  Headers as they are sent", headers),
    ):
        screen.say(f"\n  {title}", "bold")
        for line in text.split("\n"):
            screen.say(f"     {plain(line)}")


def _rules(auth: HmacAuth) -> str:
    rules = auth.rules
    return ", ".join(
        (
            f"prefix {rules.prefix!r}" if rules.prefix else "no prefix",
            "the full path is signed" if rules.full_path else "the path below the base URL is signed",
            "with the query" if rules.include_query else "without the query",
        )
    )
