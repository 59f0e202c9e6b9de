"""The HMAC partner signature as pure stages (README A.2): body hash, base string, digest, header.

Each stage is checked against `tests/vectors/signing.json`, which another tool computed. What the service's
guide leaves open is a field of `SigningRules`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

from attrs import field, frozen

__all__ = [
    "EMPTY_BODY_SHA256",
    "SIGNED_HEADERS",
    "Signature",
    "SigningRules",
    "base_string",
    "body_sha256",
    "digest",
    "header_value",
    "signed_path",
    "verify",
]

SIGNED_HEADERS = ("x-partner-client-id", "x-store-client-id", "x-store-token", "x-timestamp")
"""The headers in the base string, in its order; the store's two only when they are sent."""

EMPTY_BODY_SHA256 = sha256(b"").hexdigest()


@frozen(kw_only=True)
class SigningRules:
    """The points the guide leaves open (README A.2).

    `prefix` stands before the hex digest: the guide says `sha256=`, the endpoint pages show none. `full_path`
    signs the path with the base URL's own path (`/api/v1/partner/…`) and not from below it. `include_query`
    appends `?query` to the signed path.
    """

    prefix: str = "sha256="
    full_path: bool = field(default=False)
    include_query: bool = field(default=False)


@frozen(kw_only=True)
class Signature:
    """One signature, stage by stage (README A.2): what was hashed and joined, and the headers as they are sent.

    `base_string` and `headers` hold the store token: they are in no repr.
    """

    method: str
    path: str
    timestamp_ms: int
    body_sha256: str
    base_string: str = field(repr=False)
    digest: str
    headers: Mapping[str, str] = field(repr=False)


def body_sha256(body: bytes) -> str:
    """Return the lowercase hex SHA-256 of the body's bytes; an absent body is the empty one."""
    return sha256(body).hexdigest() if body else EMPTY_BODY_SHA256


def signed_path(path: str, *, query: str = "", base_path: str = "", rules: SigningRules) -> str:
    """Return the path as it stands in the base string, under the rules."""
    full = base_path + path if rules.full_path else path
    return f"{full}?{query}" if rules.include_query and query else full


def base_string(method: str, path: str, *, headers: Iterable[tuple[str, str]], body_hash: str) -> str:
    """Join what is signed with single newlines: method, path, `name:value` lines in order, body hash."""
    lines = [f"{name}:{value}" for name, value in headers]
    return "\n".join([method.upper(), path, *lines, body_hash])


def digest(secret_key: str, text: str) -> str:
    """Return the lowercase hex HMAC-SHA256 of the base string under the secret key, both as UTF-8."""
    # A keyed state is copied: one-shot `hmac.digest` gives up the interpreter lock for a text this short.
    keyed = _keyed(secret_key).copy()
    keyed.update(text.encode())
    return keyed.hexdigest()


@lru_cache(maxsize=64)
def _keyed(secret_key: str) -> hmac.HMAC:
    return hmac.new(secret_key.encode(), digestmod=sha256)


def header_value(hex_digest: str, *, rules: SigningRules) -> str:
    """Return the text of `x-signature`."""
    return rules.prefix + hex_digest


def verify(
    secret_key: str,
    *,
    method: str,
    path: str,
    headers: Callable[[str], str | None],
    body: bytes,
    rules: SigningRules,
) -> bool:
    """Tell whether `x-signature` signs exactly this request; compared in constant time.

    `path` is the signed path (see `signed_path`), `headers` gives a header's value by its name, None if absent.
    """
    sent = [(name, value) for name in SIGNED_HEADERS if (value := headers(name)) is not None]
    expected = digest(secret_key, base_string(method, path, headers=sent, body_hash=body_sha256(body)))
    given = headers("x-signature") or ""
    return hmac.compare_digest(header_value(expected, rules=rules).encode(), given.encode("utf-8", "replace"))
