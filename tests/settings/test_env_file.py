"""The lines of a file of settings: what each kind of them sets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from invoicing_async.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{}=plain", "plain"),
        ("export {}=plain", "plain"),
        ("  {} = plain  ", "plain"),
        ("{}=a b", "a b"),
        ("{}=a#b", "a#b"),
        ("{}=a # why", "a"),
        ("{}=a=b==", "a=b=="),
        ("{}='a # b'  # why", "a # b"),
        ('{}="a $HOME \\n"', "a $HOME \\n"),
        ("{}=\" 'a' \"", " 'a' "),
        ("{}='open", "'open"),
        ("{}=", ""),
        ("{}=''", ""),
        ("{}=first\n# {}=no\n{}=last", "last"),
        ("\ufeff{}=marked", "marked"),
        ("{}=crlf\r\n", "crlf"),
    ],
)
def test_a_line_sets(line: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(line.replace("{}", "INVOICING_X").encode())
    assert Settings.load(file, {}).values == {"INVOICING_X": value}


@pytest.mark.parametrize(
    "line", ["sk_live_secret", "=x", "1A=x", "A B=x", "export", "A='a'b", 'A="a"b" # c', 'A="a\\"b"']
)
def test_a_wrong_line_is_refused_and_not_shown(line: str, tmp_path: Path) -> None:
    """Every one by its number: a line may hold a secret."""
    file = tmp_path / "env"
    file.write_text(f"{line}\n\nB=1\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, {})
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [f"{file} line 1", f"{file} line 4"]
    assert line not in str(caught.value)


def test_where_a_value_came_from_is_known(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a\nINVOICING_A=1\nINVOICING_B=2\n")
    settings = Settings.load(file, {"INVOICING_B": "3", "OTHER": "4"})
    assert settings.sources == {"INVOICING_A": f"{file} line 2", "INVOICING_B": "the environment"}
