"""`Session.call`: what is retried and when, what limits it, and that cancelling it leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import START, FakeClock, FakeTransport
from leaks import shown
from peers import OK, Connection, Peer, answering, listening, silent
from session_calls import BASE, CALL, FINE, ORDER, body, checked, document, oauth, scripted, served, status

from invoicing_async.auth import Auth, HmacAuth, StaticToken
from invoicing_async.errors import (
    ApiError,
    ProtocolError,
    SessionError,
    TransportError,
)
from invoicing_async.events import Event
from invoicing_async.policies import RetryPolicy
from invoicing_async.sandbox import (
    Answer,
    NotPdf,
    Reset,
    Sandbox,
    Truncated,
    Unavailable,
)
from invoicing_async.session import Session
from invoicing_async.session._session import internals_of


class Holder:
    """A feature's resource that notes its end."""

    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class Stubborn(Holder):
    async def close(self) -> None:
        raise OSError("it will not close")


async def _resource(session: Session) -> Holder:
    return internals_of(session).resource(Holder)


class TestLifecycle:
    @pytest.mark.asyncio
    async def test_a_session_that_is_not_open_says_what_to_do(self) -> None:
        session = Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE]))
        with pytest.raises(SessionError, match="not open yet: enter it with `async with`"):
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="not open yet"):
            async with session.open(CALL, body):
                pass
        async with session:
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="the session is closed"):
            await session.call(CALL, body)
        with pytest.raises(SessionError, match="closed before; make a new one"):
            await session.__aenter__()

    @pytest.mark.asyncio
    async def test_it_is_entered_once(self) -> None:
        async with scripted(FINE) as session:
            with pytest.raises(SessionError, match="open before"):
                await session.__aenter__()

    def test_one_of_another_loop_is_refused(self) -> None:
        async def enter() -> Session:
            return await Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE])).__aenter__()

        session = asyncio.run(enter())
        with pytest.raises(SessionError, match="another event loop"):
            asyncio.run(session.call(CALL, body))

    def test_one_of_another_loop_is_not_closed_there_and_its_own_loop_still_can(self) -> None:
        async def enter() -> Session:
            return await Session(BASE, auth=StaticToken("t"), transport=FakeTransport(answers=[FINE])).__aenter__()

        async def leave(session: Session) -> None:
            async with asyncio.timeout(2):
                await session.__aexit__(None, None, None)

        with asyncio.Runner() as runner:
            session = runner.run(enter())
            session_disk = runner.run(_resource(session))
            for ending in (Session.close, leave):
                with pytest.raises(SessionError, match="another event loop"):
                    asyncio.run(ending(session))
            assert runner.run(session.call(CALL, body)) == b"fine"
            runner.run(session.close())
            assert session_disk.closed == 1
            runner.run(session.close())

    @pytest.mark.asyncio
    async def test_closing_twice_or_unopened_does_nothing(self) -> None:
        async with scripted(FINE) as session:
            holder = internals_of(session).resource(Holder)
            assert internals_of(session).resource(Holder) is holder
            await session.close()
        await session.close()
        assert holder.closed == 1
        never = Session(BASE, auth=StaticToken("t"))
        await never.close()
        with pytest.raises(SessionError, match="closed before"):
            await never.__aenter__()

    @pytest.mark.asyncio
    async def test_a_given_transport_is_left_to_its_owner(self) -> None:
        transport = FakeTransport(answers=[FINE])
        async with scripted(transport=transport):
            pass
        assert not transport.closed

    @pytest.mark.asyncio
    async def test_a_resource_that_fails_to_close_does_not_keep_the_connections_open(self) -> None:
        async with listening(answering(OK)) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            await session.call(CALL, body)
            internals_of(session).resource(Stubborn)
            with pytest.raises(OSError, match="it will not close"):
                await session.close()
            await asyncio.wait_for(peer.gone(), 2)

    @pytest.mark.asyncio
    async def test_a_resource_needs_an_open_session(self) -> None:
        with pytest.raises(SessionError):
            internals_of(Session(BASE, auth=StaticToken("t"))).resource(Holder)

    @pytest.mark.asyncio
    async def test_closing_ends_what_is_under_way_with_an_error_of_ours(self) -> None:
        async with listening(silent) as peer:
            session = await Session(peer.url, auth=StaticToken("t")).__aenter__()
            task = asyncio.create_task(session.call(CALL, body))
            while not peer.open:  # noqa: ASYNC110 - until the connection stands
                await asyncio.sleep(0)
            await session.close()
            with pytest.raises(SessionError):
                await asyncio.wait_for(task, 2)

    @pytest.mark.parametrize(
        "wrong",
        [
            "",
            "service.test/api",
            "//service.test",
            "ftp://service.test",
            "https://",
            "https://service.test/api?x=1",
            "https://service.test/#top",
        ],
    )
    def test_a_base_url_must_be_one_to_build_on(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="base_url must"):
            Session(wrong, auth=StaticToken("t"))

    @pytest.mark.parametrize("pair", ["me:hush@", "hush@", ":hush@"])
    def test_a_base_url_holds_no_credential_and_the_error_does_not_show_it(self, pair: str) -> None:
        with pytest.raises(ValueError, match="pass an Auth") as caught:
            Session(f"https://{pair}service.test", auth=StaticToken("t"))
        assert "hush" not in shown(caught.value)

    def test_the_base_url_has_no_slash_at_its_end(self) -> None:
        session = Session(f"{BASE}/", auth=StaticToken("t"))
        assert (session.base_url, internals_of(session).base_path) == (BASE, "/api/v1")


class TestSecrets:
    def test_a_session_shows_none(self) -> None:
        sandbox = Sandbox()
        for auth in (HmacAuth(**sandbox.credentials.partner()), oauth(sandbox), StaticToken("hush")):
            text = repr(Session(BASE, auth=auth))
            assert text == f"Session('{BASE}', auth={type(auth).__name__}, new)"

    @pytest.mark.parametrize("scheme", ["partner", "client"])
    @pytest.mark.parametrize(
        "answer",
        [Answer(status=401), Answer(status=302), Reset(), Unavailable(), Truncated(), NotPdf(), Reset(after=9)],
    )
    @pytest.mark.asyncio
    async def test_no_failure_shows_one(self, clock: FakeClock, scheme: str, answer: Any) -> None:
        """Neither the error, its causes and history, nor an event or a traceback."""
        heard: list[Event] = []
        sandbox = Sandbox(clock=clock)
        known = sandbox.credentials
        sandbox.script(ORDER, [answer] * 3)
        auth: Auth = oauth(sandbox) if scheme == "client" else HmacAuth(**known.partner())
        request = document() if scheme == "partner" else status(ORDER)
        async with served(sandbox, auth=auth, on_event=heard.append, retry=RetryPolicy(attempts=2)) as session:
            try:
                await session.call(request, checked)
                text = ""
            except (ApiError, ProtocolError, TransportError) as error:
                text = shown(error)
            bearer = auth.headers(request, base_path="", now=START).get("Authorization", "Bearer none such")
        text += repr(heard)
        for secret in (known.secret_key, known.store_token, known.client_secret, bearer.removeprefix("Bearer ")):
            assert secret not in text

    @pytest.mark.asyncio
    async def test_an_answer_that_is_not_http_shows_none(self) -> None:
        async def babble(connection: Connection, peer: Peer) -> None:
            await connection.request()
            await connection.say(b"NONSENSE\r\n\r\n")

        known = Sandbox().credentials
        async with listening(babble) as peer, Session(peer.url, auth=HmacAuth(**known.partner())) as session:
            with pytest.raises(ProtocolError) as caught:
                await session.call(document(), body)
        for secret in (known.secret_key, known.store_token):
            assert secret not in shown(caught.value)
