"""`sign`: every stage of a signature, to compare with what the service expects; secrets are masked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ...auth import HmacAuth, Signature
from ...clock import RealClock
from ...reports import signature_row
from ...settings import DOCUMENTS, Settings
from ...transport import path as quoted
from ..exits import CommandError, Exit
from ..input.options import Local
from ..terminal.output import Output, plain

__all__ = ["sign"]

EXAMPLE = "d0e11047-acaf-468f-a325-3d2f5964f5ff"


def sign(
    order_id: str = EXAMPLE,
    /,
    *,
    timestamp: int | None = None,
    method: str = "POST",
    path: str | None = None,
    body: Path | None = None,
    common: Local | None = None,
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
    common = common or Local()
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
    output.line(signature_row(stages))
    if not output.json:
        _show(output, stages.masked(), auth, settings)
    return Exit.DONE


def _show(output: Output, stages: Signature, auth: HmacAuth, settings: Settings) -> None:
    key = f"**** ({len(auth.secret_key)} characters)"
    output.facts((("base URL", settings.base_url(DOCUMENTS)), ("rules", _rules(auth)), ("secret key", key)))
    headers = "\n".join(f"{name}: {value}" for name, value in stages.headers.items())
    for title, text in (
        ("1  SHA-256 of the body", stages.body_sha256),
        ("2  Base string: lines end with one \\n, the last with none", stages.base_string),
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
