"""The documentation's own check finds a link to what is not there, and lets every other one be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    """The script that makes the documentation, which is no part of a package."""
    module = ModuleType("docs")
    path = ROOT / ".github" / "docs.py"
    module.__file__ = str(path)
    sys.modules["docs"] = module
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), module.__dict__)
    return module


def broken(docs: ModuleType, folder: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return [*docs.broken({page: docs.Links(page.read_text()) for page in folder.glob("*.html")})]


@pytest.mark.parametrize(
    "link",
    ["#here", "b.html", "b.html#there", "./b.html#there", "#a%20b", "https://example.com/x#y", "mailto:a@example.com"],
)
def test_a_link_to_what_is_there_or_elsewhere_is_let_be(docs: ModuleType, tmp_path: Path, link: str) -> None:
    here = f'<p id="here"><p id="a b"><a href="{link}">'
    assert broken(docs, tmp_path, a=here, b='<p id="there">') == []


@pytest.mark.parametrize("link", ["#gone", "c.html", "b.html#gone", "../b.html", "b.html#here", "img/x.png"])
def test_a_link_to_what_is_not_there_is_named(docs: ModuleType, tmp_path: Path, link: str) -> None:
    told = broken(docs, tmp_path, a=f'<p id="here"><img src="{link}">', b='<p id="there">')
    assert told == [f"a.html: {link} is not there"]


def test_a_docstring_links_the_heading_that_it_names(docs: ModuleType) -> None:
    headings = {"a2": "a2-the-partner-signature"}
    linked = docs.sourced("as README A.2 says", "../", headings)
    assert linked == 'as <a href="../index.html#a2-the-partner-signature">README A.2</a> says'


def test_only_links_to_what_is_not_shown_are_taken_back(docs: ModuleType) -> None:
    kept = '<p id="Session.call"><a href="#Session.call">call</a>'
    assert docs.shown(f'{kept}<a href="#Session.inner">inner</a>') == f"{kept}inner"
