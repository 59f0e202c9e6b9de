"""Ids are told apart exactly, in a few bytes each."""

from __future__ import annotations

import sys
from array import array

from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._values import digest_set
from invoicing_async._values.digest_set import DigestSet

texts = st.lists(st.text(st.characters(exclude_categories=()), max_size=4), max_size=60)


@given(texts)
def test_it_answers_as_a_set_would(given_texts: list[str]) -> None:
    """Also for lone surrogates, which UTF-8 itself refuses."""
    seen, known = DigestSet(), set[str]()
    for text in given_texts:
        assert seen.add(text) is (text not in known)
        known.add(text)
        assert len(seen) == len(known)


def test_thousands_of_ids_in_any_order_are_each_new_once() -> None:
    seen = DigestSet()
    ids = [f"order-{number * 7919 % 20_000}" for number in range(20_000)]
    assert all(seen.add(order_id) for order_id in ids)
    assert not any(seen.add(order_id) for order_id in reversed(ids))
    assert len(seen) == 20_000


def test_ids_that_share_the_first_half_of_their_digest_are_still_two() -> None:
    """The second half decides where the first is equal."""
    seen = DigestSet()
    assert seen.add("known")
    number = next(n for n in range(digest_set.BUCKETS) if seen._high[n])
    highs, lows = seen._high[number], seen._low[number]
    assert highs is not None
    assert lows is not None
    # The same bucket and first half under another second half, before and behind the one to be found.
    highs[:], lows[:] = array("Q", [highs[0]] * 3), array("I", [lows[0] ^ 2**30, lows[0], lows[0] ^ 2**31])
    assert not seen.add("known")
    lows[1] ^= 2**29
    assert seen.add("known")


def test_an_id_costs_about_twelve_bytes() -> None:
    seen = DigestSet()
    for number in range(100_000):
        seen.add(str(number))
    kept = sum(sys.getsizeof(part) for half in (seen._high, seen._low) for part in half if part is not None)
    assert kept < 100_000 * 12 * 1.25 + digest_set.BUCKETS * 2 * 100
