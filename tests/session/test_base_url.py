"""A base URL is signed and sent as it stands: what cannot be is refused where the session is made."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaks import shown

from invoicing_async import Session, StaticToken
from invoicing_async._einvoices.links import checked_base_url

RIGHT = (
    "https://partners-api.tocobagus.net/api/v1",
    "https://api.uat.koffi.vn/api",
    "http://localhost",
    "http://localhost:8080",
    "HTTP://127.0.0.1:9/x",
    "http://127.0.0.1:1",
    "http://127.0.0.1:65535/api",
    "http://[::1]:8080/api",
    "http://[2001:db8::1]",
    "http://my_service:8000/api",  # the names of containers
    "http://xn--bcher-kva.example/api",
    "https://service.test./api",
    "https://s.test/a%20b/%E1%BB%A3/c~d_e-f.g",
    "https://s.test/a;b=1,2/(c)/d@e:f!$&'*+",
    "https://s.test//double",
    "https://s.test:/api",
    "http://10.0.0.1/api",
    "http://1a.2b/api",
    "http://[fe80::1%eth0]:80/api",
)

WRONG = (
    *(
        f"https://s.test/api{tail}"
        for tail in (" ", "\n", "\r\n", "\t", "\x00", "\u00a0", "\u2028", "\ufeff", "\u200b")
    ),
    " https://s.test",
    "\ufeffhttps://s.test",
    "https://s.test/a b",
    "https://s .test/a",
    "https://s.test/ HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
    *(f"https://s.test:{port}/api" for port in ("0", "65536", "99999", "abc", "-1", "8_0", "٨٠", "80:80", "9" * 5000)),
    "http://[::1]:0",
    "http://[::1",
    "http://[::g]/",
    "http://[::1]x:80/",
    "https://s.test/hóa-đơn",
    "https://s.test/%zz",
    "https://s.test/50%",
    'https://s.test/"',
    "https://s.test/\\x",
    "https://s.test\\@evil.test/",
    "https://s.test/a/../b",
    "https://s.test/./b",
    "https://s.test/..",
    "https://a..b/",
    f"https://{'a' * 64}.test",
    "https://a%20b.test",
    "https://-a.test",
    # What must be an IPv4 address and is none, or one address to some and another to others.
    *(f"http://{host}/api" for host in ("127.1", "2130706433", "0177.0.0.1", "0x7f.1", "1.2.3.4.5", "256.1.1.1", "1.")),
    "http://[v1.a]/",
    "http://[fe80::1%25eth0]/",
    "https://straße.test/",  # another name for some, "strasse" for others
    "https://s.test?",
    "https://s.test/#",
    "",
    "/api/v1",
    "https:///api",
    "https:s.test",
)


@pytest.mark.parametrize("url", RIGHT)
def test_what_can_be_signed_and_sent_is_kept_as_it_is(url: str) -> None:
    assert checked_base_url(url) == url
    assert checked_base_url(url + "/") == url


@pytest.mark.parametrize("url", WRONG, ids=ascii)
def test_what_cannot_is_refused_in_one_bounded_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must [ -~\w]{10,200}$"):
        Session(url, auth=StaticToken("t"))


def test_a_host_beyond_ascii_is_asked_for_by_its_ascii_name() -> None:
    assert checked_base_url("http://bücher.invalid:81/x") == "http://xn--bcher-kva.invalid:81/x"
    assert checked_base_url("https://hóa-đơn.vn") == "https://xn--ha-n-qqa6pu2b.vn"


@pytest.mark.parametrize("url", ["http://s.test", 7, None, b"http://s.test"])
def test_what_is_no_text_is_refused(url: object) -> None:
    if not isinstance(url, str):
        with pytest.raises(ValueError, match="base_url must be text"):
            checked_base_url(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["https://me:hush@s.test", "ftp://me:hush@s.test", "me:hush@s.test/api", "https://me:hush@s.test/a b"]
)
def test_a_password_in_it_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must") as caught:
        checked_base_url(url)
    assert "hush" not in shown(caught.value)


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://s.test/", "https://s.test:"]))
def test_any_text_is_a_base_url_or_a_value_error(text: str, before: str) -> None:
    """What passes holds nothing that ends a request line."""
    said = checked = ""
    try:
        checked = checked_base_url(before + text)
    except ValueError as error:
        said = str(error)
    assert re.fullmatch("[!-~]+", checked) or (said.startswith("base_url must ") and said.isprintable())
