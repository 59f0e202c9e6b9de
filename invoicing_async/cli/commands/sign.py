"""`sign`: every stage of a signature, to compare with what the service expects; secrets are masked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from ...auth import HmacAuth, Signature
from ...clock import RealClock
from ...settings import DOCUMENTS, Settings
from ...transport import path as quoted
from ..exits import CommandError, Exit
from ..input.options import Common
from ..terminal.output import Output, plain

__all__ = ["mask", "sign"]

EXAMPLE = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
SECRETS = ("x-store-token",)


def mask(secret: str) -> str:
    """Show of a secret only how long it is."""
    return f"**** ({len(secret)} characters)"


@frozen
class _Masked:
    """A signature without secrets."""

    stages: Signature

    @property
    def base_string(self) -> str:
        text = self.stages.base_string
        for name in SECRETS:
            if value := self.stages.headers.get(name):
                text = text.replace(f"{name}:{value}", f"{name}:{mask(value)}")
        return text

    @property
    def headers(self) -> dict[str, str]:
        return {name: mask(value) if name in SECRETS else value for name, value in self.stages.headers.items()}


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
    try:
        path = quoted("partner", "stores", "orders", order_id, "documents", "invoice") if path is None else path
    except ValueError as error:
        raise CommandError(f"order id: {error}") from None
    try:
        content = b"" if body is None else body.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {body}: {error.strerror or error}") from None
    stages = auth.signature(
        method=method,
        path=path,
        base_path=urlsplit(settings.base_url(DOCUMENTS)).path.rstrip("/"),
        body=content,
        timestamp_ms=int(RealClock().now() * 1000) if timestamp is None else timestamp,
    )
    output = Output.of(common)
    output.line(_row(stages))
    if not output.json:
        _show(output, stages, auth, settings)
    return Exit.DONE


def _row(stages: Signature) -> dict[str, object]:
    masked = _Masked(stages)
    return {
        "method": stages.method,
        "path": stages.path,
        "timestamp_ms": stages.timestamp_ms,
        "body_sha256": stages.body_sha256,
        "base_string": masked.base_string,
        "hmac_sha256": stages.digest,
        "headers": masked.headers,
    }


def _show(output: Output, stages: Signature, auth: HmacAuth, settings: Settings) -> None:
    masked = _Masked(stages)
    facts = (("base URL", settings.base_url(DOCUMENTS)), ("rules", _rules(auth)), ("secret key", mask(auth.secret_key)))
    output.facts(facts)
    headers = "\n".join(f"{name}: {value}" for name, value in masked.headers.items())
    for title, text in (
        ("1  SHA-256 of the body", stages.body_sha256),
        ("2  Base string: lines end with one \\n, the last with none", masked.base_string),
        ("3  HMAC-SHA256 of it under the secret key, in hex", stages.digest),
        ("4  Headers as they are sent", headers),
    ):
        output.say(f"\n  {title}", "bold")
        for line in text.split("\n"):
            output.say(f"     {plain(line)}")


def _rules(auth: HmacAuth) -> str:
    rules = auth.rules
    return ", ".join(
        (
            f"prefix {rules.prefix!r}" if rules.prefix else "no prefix",
            "the full path is signed" if rules.full_path else "the path below the base URL is signed",
            "with the query" if rules.include_query else "without the query",
        )
    )
