"""Whether the service still accepts a session's credential. Pure.

One answer of 401 says little: it may come from a gateway, or from a node of the service that lags behind. So a call
that meets one checks the credential: it tries once more, with a new one where there is one to be had. Only when a
second such check fails and nothing succeeded between the two is the credential refused, as it would be for every call.
"""

from __future__ import annotations

from attrs import define, field

__all__ = ["CredentialWatch"]

ENOUGH = 2
"""Checks that fail with no success between them before the credential counts as refused."""


@define(eq=False)
class CredentialWatch:
    """The health of one credential, shared by all calls of a session."""

    failures: int = field(default=0, init=False)
    """Checks that failed since the last success."""
    _denied: bool = field(default=False, init=False)

    @property
    def refused(self) -> bool:
        """True if the next call would be refused too."""
        return self._denied or self.failures >= ENOUGH

    def accepted(self) -> None:
        """Record that a call succeeded."""
        self.failures = 0

    def failed(self) -> None:
        """Record that a call was refused and so was its check."""
        self.failures += 1

    def denied(self) -> None:
        """Record that no credential can be had: who issues them refused."""
        self._denied = True

    def given(self) -> None:
        """Record that a credential was issued."""
        self._denied = False
