"""Make the documentation: the README and its like, and a page for each public module, from its docstrings.

    python .github/docs.py [FOLDER]

A warning is an error, and so are a link to a place that is not there and a public name that is on no page. Nothing is
asked of the network, neither here nor by the pages. pdoc (extra `docs`) renders what is imported, as it stands: lazily
imported names and what attrs generates are there without a description of their own in another format.
"""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import unquote, urlsplit

import invoicing_async

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.html": "README.md",
    "changelog.html": "CHANGELOG.md",
    "contributing.html": ".github/CONTRIBUTING.md",
    "security.html": ".github/SECURITY.md",
}
MODULES = [
    invoicing_async.__name__,
    *(
        f"{invoicing_async.__name__}.{module.name}"
        for module in iter_modules(invoicing_async.__path__)
        if not module.name.startswith("_") and module.name != "cli"
    ),
]
"""All that a program may import; `cli` is the command, which says itself what it does."""

PAGE = """
{% extends "frame.html.jinja2" %}
{% block title %}{{ title }}{% endblock %}
{% block nav %}
  <ul>{% for address, name in pages %}<li><a href="{{ address }}">{{ name }}</a></li>{% endfor %}</ul>
  <ul>{% for name in modules %}<li><a href="{{ name.replace(".", "/") }}.html">{{ name }}</a></li>{% endfor %}</ul>
{% endblock %}
{% block content %}
  <main class="pdoc"><section class="module-info">{{ text | to_html | safe }}</section></main>
{% endblock %}
"""


class Links(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the references and the place of a tag."""
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name in {"href", "src"} and value:
                self.to.append(value)


def broken(pages: Mapping[Path, Links]) -> Iterator[str]:
    """Yield every link to a file, or to a place in one, that is not there; pages elsewhere are not asked for."""
    for page, links in pages.items():
        for link in links.to:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = pages[target].places if target in pages else None
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in (there or ())):
                yield f"{page.name}: {link} is not there"


def nameless(folder: Path, pages: Mapping[Path, Links]) -> Iterator[str]:
    """Yield every public name that has no place on the page of its module."""
    for module in MODULES:
        places = pages[folder / f"{module.replace('.', '/')}.html"].places
        for name in import_module(module).__all__:
            if name not in places:
                yield f"{module}.{name} is on no page"


def make(folder: Path) -> None:
    """Write every page."""
    import pdoc

    pdoc.render.configure(docformat="markdown", show_source=False, footer_text=f"Version {invoicing_async.VERSION}")
    environment = pdoc.render.env
    pdoc.pdoc(*MODULES, output_directory=folder)
    template = environment.from_string(PAGE)
    pages = [(address, Path(source).stem.capitalize()) for address, source in PAGES.items()]
    for address, source in PAGES.items():
        text = (ROOT / source).read_text()
        page = template.render(
            title=f"invoicing_async: {Path(source).stem}", text=text, pages=pages, modules=MODULES, search=False
        )
        (folder / address).write_text(page)
    headings = {place.partition("-")[0]: place for place in Links((folder / "index.html").read_text()).places}
    for file in [folder / "invoicing_async.html", *(folder / "invoicing_async").glob("*.html")]:
        up = "../" if file.parent != folder else ""
        file.write_text(sourced(shown(file.read_text()), up, headings))


def shown(text: str) -> str:
    """Take back the links that pdoc makes to members of the same page which it does not show, being inherited."""
    places = Links(text).places
    link = r'<a href="#([\w.]+)">(.*?)</a>'
    return re.sub(link, lambda found: found[0] if found[1] in places else found[2], text)


def sourced(text: str, up: str, headings: Mapping[str, str]) -> str:
    """Make links to the headings of the README that docstrings name as their source."""

    def link(found: re.Match[str]) -> str:
        return f'<a href="{up}index.html#{headings[found[1].lower() + found[2]]}">{found[0]}</a>'

    return re.sub(r"README ([AB])\.(\d)", link, text)


def main() -> int:
    """Make the pages, and say what is wrong with them."""
    warnings.simplefilter("error")
    folder = Path(sys.argv[1] if sys.argv[1:] else ROOT / "build" / "docs").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    make(folder)
    pages = {page: Links(page.read_text()) for page in folder.rglob("*.html")}
    wrong = [*broken(pages), *nameless(folder, pages)]
    print("\n".join(wrong) or f"{len(pages)} pages, {sum(len(links.to) for links in pages.values())} links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
