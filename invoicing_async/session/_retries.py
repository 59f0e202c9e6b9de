"""What a call does once an attempt has failed: check the credential, wait as the policy says, or give up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, RetryCallState

from ..errors import AuthenticationError, InvoicingError
from ._answer import StaleIntentError
from ._attempt import SingleAttempt
from ._retry import Failure

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["CHECKS", "Retries"]

CHECKS = 4
"""Credentials, each another one, that a call may try after it was refused: others may renew the same tenant's."""


class Retries:
    """The attempts of one call after its first failure. A call that does not fail never makes one: it costs much."""

    def __init__(self, call: Call[Any]) -> None:
        self._call = call
        self._made = self._checks = 0
        self._signed_anew = False
        self._declined: Mapping[str, str] | None = None
        self._failure: Failure
        self._tenacity: tuple[AsyncRetrying, RetryCallState] | None = None

    def checks(self, last: SingleAttempt[Any], error: InvoicingError) -> bool:
        """Tell whether the credential is to be checked: tried once more, and again as often as it is another one.

        By the policy such a check is part of the same attempt. So is the one signature that is made anew because the
        service's clock shows that its time was off, or that it was stale.
        """
        session, sent = self._call.session, last.credential
        if not (isinstance(error, AuthenticationError) and last.ready and self._call.request.authorised):
            return False
        if last.is_refused_for_time and not self._signed_anew:
            self._signed_anew = True
            return True
        allowed = CHECKS if session.auth.refused(sent) else 1
        if self._checks < allowed and sent != self._declined and not session.credentials.refused:
            self._checks += 1
            self._declined = sent
            return True
        if self._checks:
            session.credentials.failed()
        return False

    async def delay(self, last: SingleAttempt[Any], error: InvoicingError) -> float:
        """Return the seconds before the next attempt; raise `error` if there is to be none."""
        call = self._call
        self._made += 1
        failure = self._failure = Failure(
            error=error,
            repeat=call.request.repeat,
            policy=call.policy,
            made=self._made,
            stale=call.stale,
            spared=call.spared,
            at_once=isinstance(error, StaleIntentError) or last.exchange.stale,
            ready=last.ready,
            left=call.remaining(),
            patient=call.patience is not None,
        )
        if not failure.repeatable:
            raise error
        if failure.counted >= call.policy.attempts and last.is_refused and await call.waits_for_end():
            call.spared += failure.counted
            return 0.0
        retrying, state = self._tenacity = self._tenacity or self._new()
        state.set_exception((type(error), error, error.__traceback__))
        delay: Any = await retrying.iter(state)
        state.prepare_for_next_attempt()
        return float(delay)

    def _new(self) -> tuple[AsyncRetrying, RetryCallState]:
        retrying = AsyncRetrying(
            retry=lambda _: self._failure.repeatable,
            wait=lambda _: self._failure.wait(self._call.session.clock.random()),
            stop=lambda state: self._failure.is_last(state.upcoming_sleep),
            reraise=True,
        )
        retrying.begin()
        return retrying, RetryCallState(retrying, fn=None, args=(), kwargs={})
