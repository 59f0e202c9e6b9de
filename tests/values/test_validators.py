"""Every setting with every odd value: what is taken, and the one form in which the rest is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from attrs import fields

from invoicing_async._einvoices.shape import WireNames
from invoicing_async._values.adaptive_polling import AdaptiveSchedule
from invoicing_async._values.validators import at_least_one
from invoicing_async.auth import HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async.policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from invoicing_async.polling import AdaptivePoller, Poller
from invoicing_async.sandbox import Faults, SandboxSettings
from invoicing_async.sandbox._answers import Endless, Slow, Truncated

POSITIVE = "must be a finite number above 0"
NOT_NEGATIVE = "must be a finite number of 0 or more"
FACTOR = "must be a finite number of 1 or more"
SHARE = "must be a finite number from 0 to 1"
COUNT = "must be a whole number of 1 or more"
WHOLE = "must be a whole number of 0 or more"
PRINTABLE = "must be printable text that is not empty"
HEADER = "must be text of printable ASCII characters without spaces"
SECRET = "must be text"
RANGE = "must be (least, most) with 0 <= least <= most"
FLAG = "must be True or False"
OPTIONAL = " or None"

SETTINGS: Mapping[Callable[..., Any], Mapping[str, str]] = {
    RetryPolicy: {
        "attempts": COUNT, "first": NOT_NEGATIVE, "ceiling": NOT_NEGATIVE, "deadline": POSITIVE + OPTIONAL,
    },
    Timeouts: {
        "connect": POSITIVE, "read": POSITIVE, "attempt": POSITIVE, "floor": NOT_NEGATIVE, "intent": POSITIVE,
    },
    Limits: {
        "concurrency": COUNT, "per_second": POSITIVE + OPTIONAL, "stop_after": COUNT + OPTIONAL, "adaptive": FLAG,
        "burst": COUNT,
    },
    OutagePolicy: {
        "after": COUNT, "probe": POSITIVE, "ceiling": POSITIVE, "patience": POSITIVE, "wait": FLAG,
    },
    Poller: {
        "first": POSITIVE, "factor": FACTOR, "ceiling": POSITIVE, "jitter": SHARE, "timeout": POSITIVE + OPTIONAL,
        "poll_timeout": POSITIVE, "errors": WHOLE, "error_time": NOT_NEGATIVE, "not_found_grace": NOT_NEGATIVE,
    },
    AdaptivePoller: {
        "worth": POSITIVE, "floor": POSITIVE, "ceiling": POSITIVE, "timeout": POSITIVE + OPTIONAL,
        "poll_timeout": POSITIVE, "errors": WHOLE, "error_time": NOT_NEGATIVE, "not_found_grace": NOT_NEGATIVE,
    },
    AdaptiveSchedule: {"worth": POSITIVE, "floor": POSITIVE, "ceiling": POSITIVE},
    SandboxSettings: {
        "skew": NOT_NEGATIVE, "latency": NOT_NEGATIVE, "token_lifetime": POSITIVE, "log_size": COUNT,
    },
    Faults: {
        "unavailable_share": SHARE, "unavailable_times": NOT_NEGATIVE, "rate_limited_share": SHARE,
        "not_eligible_share": SHARE, "failed_share": SHARE, "lost_share": SHARE,
        "polls_until_done": RANGE + OPTIONAL, "seconds_until_done": RANGE + OPTIONAL,
        "exports_until_done": RANGE + OPTIONAL,
    },
    HmacAuth: {
        "partner_client_id": HEADER, "secret_key": SECRET, "store_client_id": HEADER + OPTIONAL,
        "store_token": HEADER + OPTIONAL,
    },
    StaticToken: {"token": HEADER},
    OAuthClientCredentials: {
        "client_id": SECRET, "client_secret": SECRET, "tenant_connection_code": SECRET, "scope": SECRET + OPTIONAL,
        "early": NOT_NEGATIVE, "lifetime": POSITIVE,
    },
    WireNames: dict.fromkeys(
        ("is_promotion", "has_tax_authority_code", "payment_method", "emails", "send_mail", "automatic"), PRINTABLE
    ),
    Slow: {"seconds": NOT_NEGATIVE, "size": COUNT},
    Truncated: {"missing": COUNT},
    Endless: {"chunk": COUNT},
}  # fmt: skip
"""Each setting that has a limit, with the limit as its error says it."""

NEEDED: Mapping[Callable[..., Any], Mapping[str, Any]] = {
    HmacAuth: {"partner_client_id": "p", "secret_key": "k"},
    OAuthClientCredentials: {"client_id": "c", "client_secret": "s", "tenant_connection_code": "t"},
    Slow: {"seconds": 1},
    AdaptiveSchedule: {"ceiling": 1e300},
    AdaptivePoller: {"ceiling": 1e300},
}


class Real(float):
    """As numpy's: a float of another class."""


class Indexed:
    """As numpy's whole numbers: it can be turned into one and is none."""

    def __index__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 3.0


NOTHING: frozenset[str] = frozenset()
AT_LEAST_ONE = frozenset({POSITIVE, NOT_NEGATIVE, FACTOR})
WHOLES = frozenset({COUNT, WHOLE})
ODD: list[tuple[object, frozenset[str]]] = [
    (True, frozenset({FLAG})),
    (False, frozenset({FLAG})),
    *((value, NOTHING) for value in (float("nan"), float("inf"), float("-inf"), -1, -1e-9, -(10**400))),
    *((value, NOTHING) for value in (Decimal(1), Decimal("NaN"), Fraction(1, 2), 1j, Indexed(), object, b"1", [1])),
    (-0.0, frozenset({NOT_NEGATIVE, SHARE})),
    (0.0, frozenset({NOT_NEGATIVE, SHARE})),
    (0, frozenset({NOT_NEGATIVE, SHARE, WHOLE})),
    (1, AT_LEAST_ONE | WHOLES | {SHARE}),
    (2, AT_LEAST_ONE | WHOLES),
    (0.5, frozenset({POSITIVE, NOT_NEGATIVE, SHARE})),
    (Real(0.5), frozenset({POSITIVE, NOT_NEGATIVE, SHARE})),
    (1.5, AT_LEAST_ONE),
    (3.0, AT_LEAST_ONE),
    (1e300, AT_LEAST_ONE),
    (10**400, WHOLES),
    (None, frozenset({OPTIONAL})),
    ("plain", frozenset({PRINTABLE, HEADER, SECRET})),
    ("two words", frozenset({PRINTABLE, SECRET})),
    ("é", frozenset({PRINTABLE, SECRET})),
    *((value, NOTHING) for value in ("", "end\n", "\udcff")),
    (" a", frozenset({PRINTABLE})),
    ((1, 2), frozenset({RANGE})),
    ((0.5, float("inf")), frozenset({RANGE})),
    *((value, NOTHING) for value in ((2, 1), (-1, 2), ("a", "b"), (), (float("nan"), 1))),
]
CASES = [(kind, name, limit) for kind, limits in SETTINGS.items() for name, limit in limits.items()]


def case_name(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


@pytest.mark.parametrize(("kind", "name", "limit"), CASES, ids=case_name)
def test_a_setting_takes_what_is_within_its_limit_and_says_the_limit_to_the_rest(
    kind: Callable[..., Any], name: str, limit: str
) -> None:
    """Once refused, the message has the class, the field and the limit; what was given unless it may be a secret."""
    limit, optional = limit.removesuffix(OPTIONAL), limit.endswith(OPTIONAL)
    for value, takers in ODD:
        given = {**NEEDED.get(kind, {}), name: value}
        if limit in takers or (optional and OPTIONAL in takers):
            kind(**given)
            continue
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{name} ") as caught:
            kind(**given)
        said = str(caught.value)
        if limit in {HEADER, SECRET}:
            assert "got" not in said
        else:
            assert said == f"{kind.__name__}.{name} {limit}, got {value!r}"


def test_every_setting_with_a_limit_is_in_the_table() -> None:
    given: Mapping[Any, Mapping[str, str]] = SETTINGS
    for kind, limits in given.items():
        checked = {attribute.name for attribute in fields(kind) if attribute.validator is not None}
        assert checked == limits.keys(), kind


def test_a_schedule_that_learns_has_no_ceiling_below_its_floor() -> None:
    with pytest.raises(ValueError, match=r"ceiling must be at least floor \(2\.0\), got 1\.0"):
        AdaptivePoller(floor=2.0, ceiling=1.0)


@pytest.mark.parametrize("wrong", [0, -1, float("-inf")])
def test_an_argument_below_one_is_refused_by_its_name(wrong: float) -> None:
    at_least_one("batch", 1)
    with pytest.raises(ValueError, match=rf"^batch must be 1 or more, got {wrong}$"):
        at_least_one("batch", wrong)
