"""aioresponses made to work with aiohttp 3.14, whose responses want to know the writer of their request."""

from __future__ import annotations

from typing import Any, Self

import aiohttp
from aioresponses import aioresponses
from attrs import frozen
from yarl import URL


class _Sent:
    """The writer of a request that has left whole."""

    output_size = 0


class MockedResponse(aiohttp.ClientResponse):
    """Fills in the argument that aioresponses 0.7.9 does not know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        writer: Any = _Sent()
        super().__init__(*args, stream_writer=writer, **kwargs)


@frozen
class SentRequest:
    """What was handed to aiohttp: exactly these headers, with the client's own, and this body."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    follows_redirects: bool


class Mocked:
    """Scripted answers in place of the network: `with Mocked() as mocked: mocked.post(url, …)`."""

    def __init__(self) -> None:
        self._mock = aioresponses()

    def __enter__(self) -> Self:
        self._mock.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._mock.__exit__(*exc)

    def post(self, url: str, **answer: Any) -> None:
        """Answer the next POST to this encoded URL."""
        self._mock.post(URL(url, encoded=True), response_class=MockedResponse, **answer)

    @property
    def sent(self) -> list[SentRequest]:
        """Every request in the order of its URL's first use, then of time."""
        return [
            SentRequest(
                method=method,
                url=str(url),
                headers={name.lower(): value for name, value in call.kwargs["headers"].items()},
                body=call.kwargs["data"] or b"",
                follows_redirects=call.kwargs["allow_redirects"],
            )
            for (method, url), calls in self._mock.requests.items()
            for call in calls
        ]
