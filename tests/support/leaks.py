"""What a test looks for where nothing should be: secrets in errors, tasks and connections left behind."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import Any

from places import TESTS

from invoicing_async._transport.client import AiohttpTransport
from invoicing_async.session import Session
from invoicing_async.session._internals import Internals
from invoicing_async.session._session import internals_of


def shown(error: BaseException) -> str:
    """Everything that a log could print of an error, its causes included."""
    parts = ["".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        parts += [repr(link), str(link), repr(link.args), repr(getattr(link, "__dict__", {}))]
        link = link.__cause__ or link.__context__
    return "\n".join(parts)


def kept_in_frames(error: BaseException) -> str:
    """Every local of every frame of an error's traceback, its causes included, but for those of the tests."""
    parts, beneath, seen = list[str](), [error], set[int]()
    while beneath:
        link = beneath.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if not Path(frame.f_code.co_filename).is_relative_to(TESTS):
                parts += [f"{frame.f_code.co_qualname}.{name} = {value!r}" for name, value in frame.f_locals.items()]
        beneath += [found for found in (link.__cause__, link.__context__) if found is not None]
    return "\n".join(parts)


def others() -> set[asyncio.Task[Any]]:
    """Every task but the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def in_use(session: Session | Internals) -> int:
    """Connections of a session's own transport that no longer are in its pool, but not closed."""
    transport = (internals_of(session) if isinstance(session, Session) else session).transport
    assert isinstance(transport, AiohttpTransport)
    assert transport._client.connector is not None
    return len(transport._client.connector._acquired)
