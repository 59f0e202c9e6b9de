"""Which requests are put on a pooled connection without aiohttp's client, and what of aiohttp that rests on."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage, StreamWriter
from attrs import evolve
from places import ROOT, SUPPORT

from invoicing_async._core.http import Exchange, Repeat, Request
from invoicing_async._transport import pooled
from invoicing_async._transport.pooled import TESTED, PooledPost, is_tested
from invoicing_async.transport import AiohttpTransport

POST = Request(method="POST", path="/x", base_url="http://service.test/api")


async def takes_it(request: Request = POST, transport: AiohttpTransport | None = None, **settings: Any) -> bool:
    made = transport or AiohttpTransport(**settings)
    try:
        return isinstance(made.send(request, Exchange()), PooledPost)
    finally:
        if transport is None:
            await made.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({}, True),
        ({"query": "a=b"}, True),
        ({"body": b"{}"}, True),
        ({"base_url": "https://service.test"}, True),
        ({"repeat": Repeat.IF_NOT_SENT}, False),
        ({"repeat": Repeat.IF_NOT_SENT, "body": b"{}"}, False),
        ({"method": "GET"}, False),
        ({"method": "PUT"}, False),
        ({"base_url": "http://me:mine@service.test"}, False),
        ({"base_url": "ftp://service.test"}, False),
    ],
)
async def test_only_a_post_that_may_always_be_repeated_takes_it(changed: dict[str, Any], taken: bool) -> None:  # noqa: FBT001
    assert await takes_it(evolve(POST, **changed)) is taken


async def agent(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    answer: aiohttp.ClientResponse = await handler(request)
    return answer


@pytest.mark.asyncio
@pytest.mark.parametrize("settings", [{"proxy": "http://proxy:1"}, {"trace_configs": [aiohttp.TraceConfig()]}])
async def test_not_where_something_of_the_client_is_asked_for(settings: dict[str, Any]) -> None:
    assert not await takes_it(**settings)


@pytest.mark.asyncio
async def test_not_where_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "other.test")
    assert not await takes_it(trust_env=True)
    assert await takes_it(evolve(POST, base_url="http://other.test"), trust_env=True)


@pytest.mark.asyncio
async def test_not_on_a_connector_or_a_session_of_the_users_own() -> None:
    async with aiohttp.ClientSession() as client:
        assert not await takes_it(session=client)
        assert not await takes_it(connector=client.connector)


@pytest.mark.asyncio
async def test_not_once_somebody_listens_to_a_client_that_is_there() -> None:
    """An agent may add itself to a client that was made before it."""
    transport = AiohttpTransport()
    assert await takes_it(transport=transport)
    transport._client.trace_configs.append(aiohttp.TraceConfig())
    assert not await takes_it(transport=transport)
    transport._client.trace_configs.clear()
    assert await takes_it(transport=transport)
    transport._client._middlewares = (agent,)
    assert not await takes_it(transport=transport)
    await transport.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("added", [{"trace_configs": [aiohttp.TraceConfig()]}, {"middlewares": (agent,)}])
async def test_not_where_an_agent_gives_every_new_client_something(
    monkeypatch: pytest.MonkeyPatch, added: dict[str, Any]
) -> None:
    made: Any = aiohttp.ClientSession.__init__

    def init(self: aiohttp.ClientSession, **settings: Any) -> None:
        made(self, **{**settings, **added})

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", init)
    assert not await takes_it()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["_request", "request"])
async def test_not_while_the_clients_request_is_replaced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    transport = AiohttpTransport()
    with monkeypatch.context() as patched:
        patched.setattr(aiohttp.ClientSession, name, lambda *_: None)
        assert not await takes_it(transport=transport)
    assert await takes_it(transport=transport)
    await transport.close()


def test_not_where_it_was_replaced_before_this_package_was_imported() -> None:
    """An agent that a process begins with is there first."""
    code = """
import aiohttp, asyncio, functools, sys
real = aiohttp.ClientSession._request
@functools.wraps(real)
async def watched(*args, **kwargs):
    return await real(*args, **kwargs)
aiohttp.ClientSession._request = watched
sys.path += sys.argv[1:]
from test_pooled import takes_it
print(asyncio.run(takes_it()))
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(SUPPORT)]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    assert out.stdout == "False\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["3.13.9", "3.15.0", "3.140.1", "4.0.0", "3", ""])
async def test_not_under_an_aiohttp_that_is_not_tested(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(aiohttp, "__version__", version)
    assert not is_tested(version)
    assert not await takes_it()


def test_the_installed_aiohttp_is_a_tested_one() -> None:
    assert is_tested(aiohttp.__version__)
    assert all(is_tested(f"{version}{more}") for version in TESTED for more in ("", ".0", ".5", ".0a1"))


def test_the_lowest_aiohttp_that_is_allowed_is_a_tested_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (lowest,) = (found[1] for name in project["dependencies"] if (found := re.match(r"aiohttp>=([\d.]+)", name)))
    assert is_tested(lowest)


KINDS: dict[str, Any] = {
    "aiohttp.ClientSession": aiohttp.ClientSession,
    "aiohttp.ClientRequest": aiohttp.ClientRequest,
    "aiohttp.TCPConnector": aiohttp.TCPConnector,
    "Connection": Connection,
    "ResponseHandler": ResponseHandler,
    "StreamWriter": StreamWriter,
    "RawResponseMessage": RawResponseMessage,
    "StreamReader": aiohttp.StreamReader,
}
VARIABLES = {
    "client": "aiohttp.ClientSession",
    "_client": "aiohttp.ClientSession",
    "ClientSession": "aiohttp.ClientSession",
    "_connector": "aiohttp.TCPConnector",
    "connection": "Connection",
    "_connection": "Connection",
    "protocol": "ResponseHandler",
    "writer": "StreamWriter",
    "message": "RawResponseMessage",
    "content": "StreamReader",
    "_content": "StreamReader",
}
"""What the module calls an object of aiohttp's, and what it is."""
DOCUMENTED = {"ClientSession": {"request", "trace_configs"}}
"""Names that aiohttp's own documentation promises: not inner ones."""


def listed() -> dict[str, set[str]]:
    """What the module's docstring lists."""
    found = re.findall(r"^- `([\w.]+)`: ((?:`\w+`(?:, )?)+)$", pooled.__doc__ or "", re.MULTILINE)
    return {owner: set(re.findall(r"`(\w+)`", names)) for owner, names in found}


def used() -> dict[str, set[str]]:
    """What the module's code imports from within aiohttp, and which attributes of its objects it asks for."""
    tree, found = ast.parse(Path(pooled.__file__).read_text()), defaultdict[str, set[str]](set)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp."):
            found[str(node.module)] |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and (owner := owner_of(node)):
            found[owner].add(node.attr)
    return dict(found)


def owner_of(node: ast.Attribute) -> str | None:
    value = node.value
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    if name == "request":  # ours, but for the one that names an origin
        of_origin = isinstance(value, ast.Attribute) and ast.unparse(value.value) in {"origin", "self._origin"}
        return "aiohttp.ClientRequest" if of_origin or (node.attr == "headers" and in_found(node)) else None
    owner = VARIABLES.get(name)
    public = owner is not None and node.attr in DOCUMENTED.get(owner.rpartition(".")[2], ())
    return None if public else owner


def in_found(node: ast.Attribute) -> bool:
    """True within the function that makes the request of an origin."""
    tree = ast.parse(Path(pooled.__file__).read_text())
    making = next(item for item in ast.walk(tree) if isinstance(item, ast.FunctionDef) and item.name == "_found")
    assert making.end_lineno is not None
    return making.lineno <= node.lineno <= making.end_lineno


def test_the_list_of_inner_names_is_the_codes() -> None:
    """What the docstring lists is what the code uses, no more and no less."""
    assert listed() == used()


@pytest.mark.parametrize("owner", listed())
def test_every_inner_name_is_there(owner: str) -> None:
    """In the module it is imported from, or at objects of its class."""
    names = listed()[owner]
    home = KINDS.get(owner) or importlib.import_module(owner)
    slots = {slot for kind in getattr(home, "__mro__", ()) for slot in getattr(kind, "__slots__", ())}
    attributes = {"headers", "loop", "_middlewares"}  # set by the constructors of `ClientRequest` and `ClientSession`
    assert [name for name in names if not hasattr(home, name) and name not in slots | attributes] == []


def test_nobody_else_takes_it() -> None:
    """Only the transport knows of the short cut."""
    package = Path(pooled.__file__).parent.parent
    importing = {
        file.stem
        for file in package.rglob("*.py")
        if re.search(r"from \.+(_transport\.)?pooled import", file.read_text())
    }
    assert importing == {"client"}
