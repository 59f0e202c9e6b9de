"""How the network is reached: the proxy, and the authorities that are trusted."""

from __future__ import annotations

from os import PathLike
from ssl import SSLContext, SSLError, create_default_context
from typing import TYPE_CHECKING

from attrs import field, frozen

from ..policies import Timeouts
from ..transport import proxy_fault, proxy_for
from ._variables import PROXY, SettingsError

if TYPE_CHECKING:
    from ..transport import AiohttpTransport

__all__ = ["Network", "trust_only"]


@frozen
class Network:
    """How the network is reached: what was asked for, and else what the environment says of proxies and authorities."""

    proxy: str | None = field(default=None, repr=False)
    ca: SSLContext | None = None

    def transport(self, timeouts: Timeouts | None = None) -> AiohttpTransport:
        """Make a transport. Raises `ValueError` for a proxy of the environment that is none."""
        from ..transport import AiohttpTransport

        return AiohttpTransport(proxy=self.proxy, ssl=self.ca, trust_env=True, timeouts=timeouts)

    def way_to(self, url: str) -> str | None:
        """Return the URL of the proxy that a URL is called through, without its credential; None for none."""
        return proxy_for(url, self.proxy)

    def check(self) -> None:
        """Raise `SettingsError` for a proxy that is none, where it was asked for or in the environment."""
        if self.proxy is not None and (fault := proxy_fault(self.proxy)):
            raise SettingsError(f"{PROXY} {fault}")
        try:
            proxy_for("https://", None)
        except ValueError as error:
            if self.proxy is None:
                raise SettingsError(f"a proxy in the environment is wrong: {error}") from None


def trust_only(file: str | PathLike[str]) -> SSLContext:
    """Return the context that trusts the certificates of a PEM file, and no others.

    Raises `SettingsError` for a file that cannot be read or holds no certificate.
    """
    try:
        return create_default_context(cafile=file)
    except (OSError, ValueError) as error:  # what ssl raises for a file that holds no certificate is an OSError too
        reason = "holds no certificate in PEM form" if isinstance(error, SSLError) else error
        raise SettingsError(f"{file}: {getattr(reason, 'strerror', None) or reason}") from None
