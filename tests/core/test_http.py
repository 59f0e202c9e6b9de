"""Requests are values that show no secret; a path quotes each segment exactly once."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.http import Exchange, Repeat, Request, path


def test_a_uuid_stands_as_it_is() -> None:
    assert path("orders", "d0e11047-acaf-468f-a325-3d2f5964f5ff") == "/orders/d0e11047-acaf-468f-a325-3d2f5964f5ff"


def test_a_slash_in_an_id_is_quoted() -> None:
    assert path("orders", "INV/2025/0001") == "/orders/INV%2F2025%2F0001"


def test_a_per_cent_sign_is_quoted_once() -> None:
    assert path("a%2Fb") == "/a%252Fb"


@pytest.mark.parametrize("segment", ["", ".", ".."])
def test_a_segment_that_names_another_place_is_refused(segment: str) -> None:
    with pytest.raises(ValueError, match="a path segment must not be"):
        path("orders", segment)


def test_half_a_surrogate_pair_is_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match=r"^a path segment must be text that UTF-8 can hold, got '\\ud800'$"):
        path("orders", "a\ud800")


def is_segment(text: str) -> bool:
    return text not in {".", ".."}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(is_segment), min_size=1))
def test_quoting_keeps_the_segments_apart_and_can_be_undone(segments: list[str]) -> None:
    quoted = path(*segments)
    assert quoted.isascii()
    assert [unquote(part) for part in quoted[1:].split("/")] == segments
    assert not set(quoted) & set("?#\\ \r\n")


def test_the_target_has_a_question_mark_only_with_a_query() -> None:
    assert Request(method="POST", path="/a").target == "/a"
    assert Request(method="POST", path="/a", query="b=1").target == "/a?b=1"


def test_the_url_is_the_base_and_the_target() -> None:
    assert Request(method="POST", path="/a", query="b=1", base_url="https://h/api").url == "https://h/api/a?b=1"


def test_a_request_is_repeatable_and_authorised_unless_it_says_otherwise() -> None:
    request = Request(method="POST", path="/a")
    assert request.repeat is Repeat.ALWAYS
    assert request.authorised
    assert request.body == b""


def test_the_repr_shows_neither_a_headers_value_nor_the_body() -> None:
    request = Request(method="POST", path="/a", headers={"Authorization": "Bearer hush", "X": "hush"}, body=b"hush")
    assert "hush" not in repr(request)
    assert "<Authorization, X>" in repr(request)
    assert "<4 bytes>" in repr(request)


def test_an_exchange_begins_unsent() -> None:
    assert not Exchange().sent
