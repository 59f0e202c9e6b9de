"""The HMAC partner signature in stages (README A.2): hash of the body, base string, digest. Pure.

Each stage is checked against `tests/vectors/signing.json`, which another tool computed. What the service's
guide leaves open is a field of `SigningRules`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from attrs import evolve, field, frozen

from .secrecy import Hidden

__all__ = ["SIGNED_HEADERS", "Signature", "Signed", "SigningRules", "sign", "signed_path", "verify"]

STORE_TOKEN = "x-store-token"  # noqa: S105 - the name of a header
SIGNED_HEADERS = ("x-partner-client-id", "x-store-client-id", STORE_TOKEN, "x-timestamp")
"""The headers in the base string, in its order; the store's two only when they are sent."""

EMPTY_BODY_SHA256 = sha256(b"").hexdigest()


@frozen(kw_only=True)
class SigningRules:
    """What the service's guide leaves open (README A.2).

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

    def masked(self) -> Signature:
        """Return it as it may be shown: of the store token there is only its length."""
        if (token := self.headers.get(STORE_TOKEN)) is None:
            return self
        shown = f"**** ({len(token)} characters)"
        text = self.base_string.replace(f"{STORE_TOKEN}:{token}", f"{STORE_TOKEN}:{shown}")
        return evolve(self, base_string=text, headers={**self.headers, STORE_TOKEN: shown})


class Signed(NamedTuple):
    """What signing a request made, stage by stage."""

    body_sha256: str
    base_string: str
    digest: str
    """What `x-signature` holds after the prefix."""


def signed_path(path: str, *, query: str = "", base_path: str = "", rules: SigningRules) -> str:
    """Return the path as it stands in the base string, under the rules."""
    full = base_path + path if rules.full_path else path
    return f"{full}?{query}" if rules.include_query and query else full


def sign(secret_key: str, method: str, path: str, *, headers: Iterable[tuple[str, str]], body: bytes) -> Signed:
    """Sign a request: join what is signed by newlines and take its HMAC-SHA256 under the secret key, both as UTF-8.

    What is signed is the method, the path (see `signed_path`), a line `name:value` for each header in order, and the
    SHA-256 of the body, of which an absent one is the empty one. Both hashes are in lowercase hex.
    """
    body_hash = sha256(body).hexdigest() if body else EMPTY_BODY_SHA256
    text = Hidden("\n".join([method.upper(), path, *[f"{name}:{value}" for name, value in headers], body_hash]))
    # A keyed state is copied: one-shot `hmac.digest` gives up the interpreter lock for a text this short.
    state = _keyed(secret_key).copy()
    state.update(text.encode())
    return Signed(body_hash, text, state.hexdigest())


@lru_cache(maxsize=64)
def _keyed(secret_key: str) -> hmac.HMAC:
    return hmac.new(secret_key.encode(), digestmod=sha256)


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

    `path` is the signed path (see `signed_path`), `headers` returns a header's value by its name, None if absent.
    """
    sent = [(name, value) for name in SIGNED_HEADERS if (value := headers(name)) is not None]
    expected = rules.prefix + sign(secret_key, method, path, headers=sent, body=body).digest
    given = headers("x-signature") or ""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
