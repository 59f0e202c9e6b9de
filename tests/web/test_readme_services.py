"""The README on web services: it shows the recipes that are tested, the whole table, and a script without a loop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import README
from readme_blocks import example, modules
from served import serving_sandbox, whole

from invoicing_async import HmacAuth
from invoicing_async.sandbox import Sandbox, demo_orders
from invoicing_async.web import JUDGED, ROWS

SECTION = README.read_text().partition("\n## In a web service\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", ["invoicing_service", "fastapi_app"])
def test_the_service_that_the_readme_shows_is_the_one_that_is_tested(name: str) -> None:
    """To the letter: `test_web_recipes.py` runs it."""
    assert name in modules()


def test_a_script_saves_an_invoice_without_a_loop(tmp_path: Path) -> None:
    sandbox, (order,) = Sandbox(), demo_orders(1)
    with serving_sandbox(sandbox) as variables:
        url, auth = variables["INVOICING_DOCUMENTS_BASE_URL"], HmacAuth(**sandbox.credentials.partner())
        saved = example("save_invoice")(url, auth, order, str(tmp_path))
    assert whole(saved.path)


def test_the_readme_shows_every_status_of_the_table() -> None:
    rows = re.findall(r"^\| (\d{3}) \|", SECTION, re.MULTILINE)
    assert [*map(int, rows)] == sorted({int(row.status) for row in (*ROWS.values(), *JUDGED.values())})
