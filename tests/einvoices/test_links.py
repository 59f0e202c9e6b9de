"""Download links: quoted once, followed within bounds, and never shown in an error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._einvoices.links import MOST_HOPS, MOVED, RENEWED, Link, LinkError, moved, read_link

BASE = "https://api.example.vn/api/v2/ob/invoices/1/export?format=pdf"
ASKED = re.compile(r"https?://[!-~]+")
PIECE = st.text(max_size=40)


def read(text: str) -> Link:
    return read_link(text, base=BASE)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://h/a.pdf", "https://h/a.pdf"),
        ("HTTPS://H.Example.VN/A.pdf", "https://h.example.vn/A.pdf"),
        (" https://h/a.pdf\r\n", "https://h/a.pdf"),
        ("https://h:8443/a%20b.pdf?x=1", "https://h:8443/a%20b.pdf?x=1"),
        ("https://h", "https://h/"),
        ("https://h?x=1", "https://h/?x=1"),
        ("https://h/hoa don.pdf", "https://h/hoa%20don.pdf"),
        ("https://h/hóa-đơn.pdf", "https://h/h%C3%B3a-%C4%91%C6%A1n.pdf"),
        ("https://h/100%.pdf?x=5%", "https://h/100%25.pdf?x=5%25"),
        ("https://h/a?X-Amz-Signature=ab%2Fc+d&e=[1]", "https://h/a?X-Amz-Signature=ab%2Fc+d&e=[1]"),
        ('https://h/a?response-content-disposition=inline; filename="hđ.pdf"',
         "https://h/a?response-content-disposition=inline;%20filename=%22h%C4%91.pdf%22"),
        ("https://h/a#page=1", "https://h/a"),
        ("https://hóa-đơn.vn/a", "https://xn--ha-n-qpa3y3754b.vn/a"),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
        ("https://my_bucket.s3.amazonaws.com/a", "https://my_bucket.s3.amazonaws.com/a"),
        ("https://192.0.2.7/a", "https://192.0.2.7/a"),
        ("https://h./a", "https://h./a"),
        ("/files/a.pdf", "https://api.example.vn/files/a.pdf"),
        ("//cdn.example.vn/a", "https://cdn.example.vn/a"),
        ("https://h/a\udcff", "https://h/a%FF"),
    ],
)  # fmt: skip
def test_a_link_is_quoted_once_and_otherwise_as_it_stands(text: str, url: str) -> None:
    """Signed links, blanks, letters of any script, names beyond ASCII, relative ones."""
    if "xn--" in url:
        url = "https://" + "hóa-đơn.vn".encode("idna").decode() + "/a"
    assert read(text).url == url


@pytest.mark.parametrize(
    "text",
    ["", " \n", "ftp://h/a", "file:///etc/passwd", "javascript:alert(1)", "https://", "https:///a", "https://h:0/a",
     "https://h:99999/a", "https://h:x/a", "https://[x/a", "https://[1:2]/a", "https://user:secret@h/a", "https://u@h/a",
     "https://h/\x00a", "https://h/a\nb", "https://ho st/a", "https://h\\@evil/a", "https://-h/a", "https://..../a",
     "https://h/\ud800", "https://" + "é" * 70 + ".vn/a", "https://h/" + "a" * 20_000],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_refused(text: str) -> None:
    """No http(s) URL, no host, a user name, control characters."""
    with pytest.raises(LinkError):
        read(text)


@given(
    host=st.sampled_from(["https://h", "http://files.example.vn:8080", "", "https://hóa.vn"]), path=PIECE, query=PIECE
)
def test_any_text_is_refused_or_becomes_a_url_that_stays_as_it_is(host: str, path: str, query: str) -> None:
    """What is sent is printable ASCII, quoting it again changes nothing, and no error shows the text."""
    secret = "Signature=deadbeef"
    said = ""
    try:
        link = read(f"{host}/{path}?{secret}&{query}")
    except LinkError as error:
        said = str(error)
    assert secret not in said
    if said:
        return
    assert ASKED.fullmatch(link.url)
    assert read(link.url) == link
    assert secret not in repr(link)
    assert "?" not in link.host


def test_the_statuses_of_a_link_are_told_apart() -> None:
    """Moved, to be renewed, and everything else."""
    assert {301, 302, 303, 307, 308} == MOVED
    assert {401, 403, 404, 410} == RENEWED


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://bucket.example/a?sig=1", "https://bucket.example/a?sig=1"),
        ("/b c.pdf", "https://h/b%20c.pdf"),
        ("c.pdf", "https://h/files/c.pdf"),
        ("?again=1", "https://h/files/a.pdf?again=1"),
        ("//cdn/a", "https://cdn/a"),
    ],
)
def test_a_redirect_is_resolved_against_what_was_asked_for(location: str, url: str) -> None:
    """A relative Location is one too (RFC 9110, 10.2.2)."""
    link = read("https://h/files/a.pdf")
    assert moved(link, location, [link.url]).url == url


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (None, "without saying where"),
        ("http://h/files/a.pdf", "from https to http"),
        ("http://other/x", "from https to http"),
        ("https://h/files/a.pdf", "in a circle"),
        ("https://h/files/a.pdf#x", "in a circle"),
        ("ftp://h/a", "no http or https URL"),
        ("https://u:secret@h/a", "holds a user name"),
    ],
)
def test_a_redirect_that_leads_nowhere_good_is_refused(location: str | None, said: str) -> None:
    """Never to plain http, never in a circle, never with a credential."""
    link = read("https://h/files/a.pdf")
    with pytest.raises(LinkError, match=said) as caught:
        moved(link, location, [link.url])
    assert "secret" not in str(caught.value)


def test_plain_http_may_lead_to_https_and_to_http() -> None:
    """Only a downgrade is one."""
    link = read("http://h/a")
    assert moved(link, "https://h/a", [link.url]).secure
    assert not moved(link, "http://g/a", [link.url]).secure


def test_the_hops_are_bounded() -> None:
    """As many as the bound are followed, one more is not."""
    link, seen = read("https://h/0"), ["https://h/0"]
    for number in range(1, MOST_HOPS + 1):
        link = moved(link, f"/{number}", seen)
        seen.append(link.url)
    with pytest.raises(LinkError, match="more than 5 times"):
        moved(link, "/6", seen)
