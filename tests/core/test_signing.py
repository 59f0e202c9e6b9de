"""Every stage of the signature against vectors that another tool made; verify accepts exactly what was signed."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from places import signing_vectors

from invoicing_async._core import signing
from invoicing_async._core.http import Request
from invoicing_async._core.signing import SIGNED_HEADERS, SigningRules
from invoicing_async.auth import HmacAuth

VECTORS = signing_vectors()
SECRET = "sk_test_51Hq"
NAMES = [vector["name"] for vector in VECTORS]

header_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
paths = st.lists(st.text("abc-%2F019", min_size=1, max_size=6), min_size=1, max_size=4).map(lambda s: "/" + "/".join(s))
rules_of_any_kind = st.builds(
    SigningRules, prefix=st.sampled_from(["sha256=", "", "v1,"]), full_path=st.booleans(), include_query=st.booleans()
)


def sent_headers(vector: dict[str, Any]) -> list[tuple[str, str]]:
    values = (vector["partner_client_id"], vector["store_client_id"], vector["store_token"], vector["timestamp_ms"])
    return [(name, str(value)) for name, value in zip(SIGNED_HEADERS, values, strict=True) if value is not None]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_every_stage_is_the_vectors(vector: dict[str, Any]) -> None:
    """The hash of the body, the text that is signed, and its digest."""
    headers, body = sent_headers(vector), vector["body"].encode()
    signed = signing.sign(vector["secret_key"], vector["method"], vector["path"], headers=headers, body=body)
    assert signed.body_sha256 == vector["body_sha256"]
    assert signed.base_string == vector["base_string"]
    assert signed.digest == vector["signature_hex"]
    assert [rules.prefix + signed.digest for rules in (SigningRules(), SigningRules(prefix=""))] == [
        vector["header"],
        vector["signature_hex"],
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_hmac_auth_sends_the_vectors_headers(vector: dict[str, Any]) -> None:
    """The stages together, with the timestamp in milliseconds cut down from seconds."""
    auth = HmacAuth(
        partner_client_id=vector["partner_client_id"],
        secret_key=vector["secret_key"],
        store_client_id=vector["store_client_id"],
        store_token=vector["store_token"],
    )
    request = Request(method=vector["method"], path=vector["path"], body=vector["body"].encode())
    sent = auth.headers(request, base_path="/api/v1", now=(vector["timestamp_ms"] + 0.5) / 1000)
    assert dict(sent) == {**dict(sent_headers(vector)), "x-signature": vector["header"]}


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_verify_accepts_the_vectors(vector: dict[str, Any]) -> None:
    headers = {**dict(sent_headers(vector)), "x-signature": vector["header"]}
    assert signing.verify(
        vector["secret_key"],
        method=vector["method"],
        path=vector["path"],
        headers=headers.get,
        body=vector["body"].encode(),
        rules=SigningRules(),
    )


def test_method_is_upper_case_and_nothing_trails() -> None:
    """Also of an empty body, whose hash is always the same."""
    signed = signing.sign(SECRET, "post", "/a", headers=[("b", "c")], body=b"")
    assert signed.base_string == f"POST\n/a\nb:c\n{sha256(b'').hexdigest()}"


@pytest.mark.parametrize(
    ("rules", "signed"),
    [
        (SigningRules(), "/partner/x"),
        (SigningRules(full_path=True), "/api/v1/partner/x"),
        (SigningRules(include_query=True), "/partner/x?a=1"),
        (SigningRules(full_path=True, include_query=True), "/api/v1/partner/x?a=1"),
    ],
)
def test_each_open_point_of_the_path_is_a_setting(rules: SigningRules, signed: str) -> None:
    assert signing.signed_path("/partner/x", query="a=1", base_path="/api/v1", rules=rules) == signed


def test_no_query_leaves_no_question_mark() -> None:
    assert signing.signed_path("/x", rules=SigningRules(include_query=True)) == "/x"


@st.composite
def signed_requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request as its receiver sees it, signed by `HmacAuth` under any rules."""
    rules = draw(rules_of_any_kind)
    store = draw(st.none() | st.tuples(header_text, header_text))
    auth = HmacAuth(
        partner_client_id=draw(header_text),
        secret_key=SECRET,
        store_client_id=store[0] if store else None,
        store_token=store[1] if store else None,
        rules=rules,
    )
    request = Request(
        method=draw(st.sampled_from(["GET", "POST", "PUT"])),
        path=draw(paths),
        query=draw(st.sampled_from(["", "a=1", "format=pdf&x="])),
        body=draw(st.binary(max_size=40)),
    )
    base_path = draw(st.sampled_from(["", "/api/v1"]))
    headers = auth.headers(request, base_path=base_path, now=draw(st.floats(0, 4e9)))
    path = signing.signed_path(request.path, query=request.query, base_path=base_path, rules=rules)
    return {"method": request.method, "path": path, "headers": headers, "body": request.body, "rules": rules}


def verified(seen: dict[str, Any], secret: str = SECRET) -> bool:
    return signing.verify(secret, **{**seen, "headers": dict(seen["headers"]).get})


@given(signed_requests())
def test_verify_accepts_what_we_sign(seen: dict[str, Any]) -> None:
    assert verified(seen)


@settings(max_examples=50)
@given(signed_requests(), st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
def test_verify_refuses_another_method(seen: dict[str, Any], method: str) -> None:
    assume(method != seen["method"])
    assert not verified({**seen, "method": method})


@settings(max_examples=50)
@given(signed_requests(), paths)
def test_verify_refuses_another_path(seen: dict[str, Any], path: str) -> None:
    assume(path != seen["path"])
    assert not verified({**seen, "path": path})


@settings(max_examples=50)
@given(signed_requests(), st.binary(max_size=40))
def test_verify_refuses_another_body(seen: dict[str, Any], body: bytes) -> None:
    assume(body != seen["body"])
    assert not verified({**seen, "body": body})


@settings(max_examples=50)
@given(signed_requests(), st.sampled_from([*SIGNED_HEADERS, "x-signature"]), st.none() | header_text)
def test_verify_refuses_a_changed_added_or_missing_header(seen: dict[str, Any], name: str, value: str | None) -> None:
    headers = dict(seen["headers"])
    assume(headers.get(name) != value)
    headers.pop(name, None)
    assert not verified({**seen, "headers": headers if value is None else {**headers, name: value}})


@settings(max_examples=50)
@given(signed_requests(), header_text)
def test_verify_refuses_another_secret(seen: dict[str, Any], secret: str) -> None:
    assume(secret != SECRET)
    assert not verified(seen, secret)


def test_verify_bears_a_signature_that_is_no_text() -> None:
    """What arrives may hold surrogates from undecodable bytes; that is a wrong signature, not a crash."""
    headers = {"x-timestamp": "1", "x-signature": "\udcff\udcfe"}
    assert not signing.verify(SECRET, method="GET", path="/", headers=headers.get, body=b"", rules=SigningRules())


@pytest.mark.parametrize("token", [None, "tkn-7"])
def test_a_masked_signature_shows_of_the_store_token_its_length_and_all_else_as_it_is(token: str | None) -> None:
    """In the headers and in what was signed; the same characters elsewhere are no token."""
    store = {} if token is None else {"x-store-token": token}
    text = "".join(["GET\n/tkn-7\n", *(f"{name}:{value}\n" for name, value in store.items()), "x-timestamp:5\nhash"])
    signature = signing.Signature(
        method="GET",
        path="/tkn-7",
        timestamp_ms=5,
        body_sha256="hash",
        base_string=text,
        digest="d",
        headers={**store, "x-timestamp": "5"},
    )
    shown = "**** (5 characters)"
    masked = signature.masked()
    assert masked.base_string == text.replace("x-store-token:tkn-7", f"x-store-token:{shown}")
    assert masked.headers == {**({} if token is None else {"x-store-token": shown}), "x-timestamp": "5"}
    assert (masked.method, masked.path, masked.timestamp_ms, masked.digest) == ("GET", "/tkn-7", 5, "d")
