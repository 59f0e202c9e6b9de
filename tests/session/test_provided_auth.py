"""Credentials that somebody else changes are picked up without a restart."""

from __future__ import annotations

import asyncio
import json

import pytest
from fakes import FakeClock
from peers import Connection, Peer, Play, listening
from session_calls import body, document

from invoicing_async import AuthenticationError, HmacAuth, OAuthClientCredentials, RetryPolicy, Session, TransportError
from invoicing_async.auth import Auth, ProvidedAuth, Provider


def keyed(key: str) -> HmacAuth:
    return HmacAuth(partner_client_id=key, secret_key=f"secret-of-{key}")


class Vault:
    """Gives what was put into it, and counts how often it was asked."""

    def __init__(self, *given: Auth | Exception) -> None:
        self.given = list(given)
        self.asked = 0

    async def __call__(self) -> Auth:
        self.asked += 1
        await asyncio.sleep(0)
        now = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(now, Exception):
            raise now
        return now


def accepting(keys: set[str], seen: list[str]) -> Play:
    """A service that knows these partners now, and answers others with 401."""

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            request = await connection.request()
            line = next(line for line in request.decode().split("\r\n") if line.lower().startswith("x-partner"))
            seen.append(line.split(": ")[1])
            status = "200 OK" if seen[-1] in keys else "401 X"
            await connection.say(f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nfine".encode())

    return play


def session_to(peer: Peer, provider: Provider, clock: FakeClock | None = None) -> Session:
    return Session(peer.url, auth=ProvidedAuth(provider), clock=clock, retry=RetryPolicy(attempts=1))


@pytest.mark.asyncio
async def test_a_rotated_secret_is_picked_up_by_the_call_that_meets_its_end() -> None:
    """The old key dies between two calls: the second asks the provider, and is accepted."""
    keys, seen = {"old"}, list[str]()
    vault = Vault(keyed("old"), keyed("new"))
    async with listening(accepting(keys, seen)) as peer, session_to(peer, vault) as session:
        await session.call(document(), body)
        keys.symmetric_difference_update({"old", "new"})
        assert await session.call(document(), body) == b"fine"
    assert seen == ["old", "old", "new"]
    assert vault.asked == 2


@pytest.mark.asyncio
async def test_any_number_of_calls_ask_once() -> None:
    """Fifty calls at once: the provider is asked once at the beginning, and once after its answer is a minute old."""
    clock, seen = FakeClock(), list[str]()
    vault = Vault(keyed("one"))
    async with listening(accepting({"one"}, seen)) as peer, session_to(peer, vault, clock) as session:
        await asyncio.gather(*(session.call(document(), body) for _ in range(50)))
        assert vault.asked == 1
        await clock.sleep(61)
        await asyncio.gather(*(session.call(document(), body) for _ in range(50)))
    assert vault.asked == 2


@pytest.mark.asyncio
async def test_a_key_that_is_wrong_stays_an_error() -> None:
    """A provider that gives the same key once more is believed, and the call fails."""
    seen: list[str] = []
    vault = Vault(keyed("wrong"))
    async with listening(accepting(set(), seen)) as peer, session_to(peer, vault) as session:
        with pytest.raises(AuthenticationError):
            await session.call(document(), body)
    assert len(seen) == 2
    assert vault.asked == 2


@pytest.mark.asyncio
async def test_a_provider_that_is_down_leaves_the_key_at_hand_in_use() -> None:
    """The vault's outage is not the service's."""
    clock, seen = FakeClock(), list[str]()
    vault = Vault(keyed("one"), OSError("vault says: secret-of-one"), keyed("one"))
    async with listening(accepting({"one"}, seen)) as peer, session_to(peer, vault, clock) as session:
        await session.call(document(), body)
        await clock.sleep(61)
        assert await session.call(document(), body) == b"fine"
        await clock.sleep(6)
        assert await session.call(document(), body) == b"fine"
    assert vault.asked == 3


@pytest.mark.asyncio
async def test_a_provider_that_never_gave_anything_fails_the_call_unsent_and_without_its_words() -> None:
    """What a vault says may hold a secret; the kind of its failure is said."""
    seen: list[str] = []
    async with listening(accepting(set(), seen)) as peer, session_to(peer, Vault(OSError("secret!"))) as session:
        with pytest.raises(TransportError, match="provider of credentials failed: OSError") as caught:
            await session.call(document(), body)
    assert caught.value.sent == "no"
    assert "secret!" not in str(caught.value)
    assert not seen


@pytest.mark.asyncio
async def test_a_rotated_client_secret_is_picked_up_when_the_old_one_gets_no_token() -> None:
    """The token's giver refuses the old client: the provider is asked, and the new one gets its token."""
    asked: list[str] = []

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            request = (await connection.request()).decode()
            if "/oauth/token" in request:
                asked.append(request)
                status, said = ("400 X", "{}") if len(asked) == 1 else ("200 OK", json.dumps({"access_token": "t"}))
            else:
                status, said = "200 OK", "fine"
            await connection.say(f"HTTP/1.1 {status}\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())

    def client(secret: str) -> Auth:
        return OAuthClientCredentials(client_id="c", client_secret=secret, tenant_connection_code="t")

    vault = Vault(client("first"), client("second"))
    async with listening(play) as peer, session_to(peer, vault) as session:
        assert await session.call(document(), body) == b"fine"
    assert len(asked) == 2
    assert vault.asked == 2


def test_its_repr_shows_no_credentials() -> None:
    """Neither the provider, whose closure may hold one, nor what it gave."""
    assert repr(ProvidedAuth(Vault(keyed("k")))) == "ProvidedAuth(fresh_for=60.0)"


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_answer_must_be_fresh_for_some_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="fresh_for"):
        ProvidedAuth(Vault(keyed("k")), fresh_for=seconds)
