"""Who is calling: the `Auth` protocol and its forms.

An `Auth` is asked for each attempt: `prepare`, unless it is `ready`, may ask the service and is awaited before
the attempt takes its place in the queue, `headers` is pure and is called when the head is about to be sent, so
that a timestamp is never stale. No secret of this package has a repr, and one with a blank, a line end or something
invisible stuck to it is refused where it is given, without being shown.
"""

from __future__ import annotations

from .._core.signing import Signature, SigningRules
from .._values.characters import stuck as credential_fault
from ._hmac import HmacAuth
from ._oauth import OAuthClientCredentials
from ._protocol import Auth, Call
from ._provided import ProvidedAuth, Provider
from ._static import StaticToken

__all__ = [
    "Auth",
    "Call",
    "HmacAuth",
    "OAuthClientCredentials",
    "ProvidedAuth",
    "Provider",
    "Signature",
    "SigningRules",
    "StaticToken",
    "credential_fault",
]
