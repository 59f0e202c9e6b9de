"""How others retry: tenacity and urllib3 by their own code, botocore's two modes by their rules; no rule at all.

Each has one method, `call`, which sends until a request is done or given up, and tells whether it is done. One object
is one client: what it learns from one request it may use for the next.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from model import DONE, Answer, RefusedError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError, ProtocolError
from urllib3.util import Retry

Send = Callable[[], Awaitable[Answer]]


class Rival(Protocol):
    async def call(self, send: Send) -> bool: ...


class NotDoneError(Exception):
    """An answer that is none of success."""


class Tenacity:
    """`@retry(stop=stop_after_attempt(5), wait=wait_random_exponential(max=60))`, which copies itself for each call."""

    def __init__(self) -> None:
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(5),
            wait=wait_random_exponential(multiplier=1, max=60),
            retry=retry_if_exception_type((NotDoneError, RefusedError)),
            reraise=True,
        )

    async def call(self, send: Send) -> bool:
        async def attempt() -> None:
            if (await send()).status != DONE.status:
                raise NotDoneError

        try:
            await self._retrying.copy()(attempt)
        except (NotDoneError, RefusedError):
            return False
        return True


class Urllib3:
    """`urllib3.Retry` itself, which honours Retry-After, with the waits that its documentation recommends."""

    def __init__(self) -> None:
        self._retry = Retry(
            total=5,
            backoff_factor=0.5,
            backoff_jitter=0.5,
            status_forcelist=(429, 503),
            allowed_methods=None,
        )

    async def call(self, send: Send) -> bool:
        retry = self._retry
        while True:
            response, error = None, None
            try:
                answer = await send()
                if answer.status == DONE.status:
                    return True
                response = _response(answer)
            except RefusedError as refused:
                error = ProtocolError("refused", refused)
            try:
                retry = retry.increment("POST", "/", response=response, error=error)
            except MaxRetryError:
                return False
            wait = (retry.get_retry_after(response) if response else None) or retry.get_backoff_time()
            await asyncio.sleep(wait)


def _response(answer: Answer) -> HTTPResponse:
    headers = {} if answer.retry_after is None else {"Retry-After": str(math.ceil(answer.retry_after))}
    return HTTPResponse(status=answer.status, headers=headers)


class Standard:
    """botocore's standard mode: three attempts, full jitter up to 20 s, and a quota of retries that a client shares.

    A retry costs 5 of 500; a call that comes through after one gets them back, one that needed none brings 1.
    """

    ATTEMPTS, QUOTA, COST, REFUND, CEILING = 3, 500, 5, 1, 20.0

    def __init__(self) -> None:
        self.quota = self.QUOTA

    async def call(self, send: Send) -> bool:
        refund = self.REFUND
        for attempt in range(1, self.ATTEMPTS + 1):
            if await self._sent(send):
                self.quota = min(self.QUOTA, self.quota + refund)
                return True
            if attempt == self.ATTEMPTS or self.quota < self.COST:
                return False
            self.quota -= self.COST
            refund = self.COST
            await asyncio.sleep(random.random() * min(2.0 ** (attempt - 1), self.CEILING))
        return False

    async def _sent(self, send: Send) -> bool:
        try:
            return (await send()).status == DONE.status
        except RefusedError:
            return False


class Adaptive(Standard):
    """botocore's adaptive mode: the standard one behind a rate that falls at a throttling answer and grows by a cubic.

    SYS_DEP_503 and 429 count as throttling, as S3's SlowDown does. No answer at all does not, as there.
    """

    def __init__(self) -> None:
        super().__init__()
        now = asyncio.get_running_loop().time()
        self._bucket, self._cubic, self._clocker = Bucket(), Cubic(now), Clocker(now)
        self._enabled = False

    async def _sent(self, send: Send) -> bool:
        if self._enabled:
            await self._bucket.acquire()
        throttled = done = False
        try:
            done = (await send()).status == DONE.status
            throttled = not done
        except RefusedError:
            pass
        self._hear(throttled=throttled)
        return done

    def _hear(self, *, throttled: bool) -> None:
        now = asyncio.get_running_loop().time()
        measured = self._clocker.record(now)
        if throttled:
            rate = self._cubic.fail(min(measured, self._bucket.rate) if self._enabled else measured, now)
            self._enabled = True
        else:
            rate = self._cubic.succeed(now)
        self._bucket.set_rate(min(rate, 2.0 * measured))


class Bucket:
    """Tokens that fill at `rate` a second, up to a second's worth; a change of the rate wakes one who waits."""

    LEAST = 0.5

    def __init__(self) -> None:
        self.rate = self._most = 1.0
        self._tokens = 0.0
        self._at = asyncio.get_running_loop().time()
        self._waiters: deque[asyncio.Future[None]] = deque()

    def set_rate(self, rate: float) -> None:
        self._refill()
        self.rate, self._most = max(rate, self.LEAST), max(rate, 1.0)
        self._tokens = min(self._tokens, self._most)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def acquire(self) -> None:
        self._refill()
        while (missing := 1.0 - self._tokens) > 0.0:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await asyncio.wait([waiter], timeout=missing / self.rate + 1e-6)
            waiter.cancel()
            self._refill()
        self._tokens -= 1.0

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now


class Cubic:
    """The rate after the last throttling answer: 0.7 of what was sent then, and from there a cubic of the time."""

    SCALE, BETA = 0.4, 0.7

    def __init__(self, now: float) -> None:
        self._highest, self._failed = 0.0, now

    def succeed(self, now: float) -> float:
        zero = math.cbrt(self._highest * (1 - self.BETA) / self.SCALE)
        return float(self.SCALE * (now - self._failed - zero) ** 3 + self._highest)

    def fail(self, rate: float, now: float) -> float:
        self._highest, self._failed = rate, now
        return rate * self.BETA


class Clocker:
    """The rate of answers, looked at every half second and smoothed."""

    SMOOTHING, SPAN = 0.8, 0.5

    def __init__(self, now: float) -> None:
        self._last, self._count, self._rate = math.floor(now), 0, 0.0

    def record(self, now: float) -> float:
        at = math.floor(now / self.SPAN) * self.SPAN
        self._count += 1
        if at > self._last:
            self._rate += self.SMOOTHING * (self._count / (at - self._last) - self._rate)
            self._count, self._last = 0, at
        return self._rate


class Insisting:
    """No rule: what was refused is asked again at once. With the best number at once, a bound for all the others."""

    async def call(self, send: Send) -> bool:
        while True:
            try:
                if (await send()).status == DONE.status:
                    return True
            except RefusedError:
                pass


RIVALS: dict[str, Callable[[], Rival]] = {
    "tenacity, 5 attempts": Tenacity,
    "urllib3 Retry, 5 retries": Urllib3,
    "botocore standard": Standard,
    "botocore adaptive": Adaptive,
}
