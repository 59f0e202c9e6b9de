"""The lines of a file of settings: what each kind of them sets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from invoicing_async.settings import Service, Settings, SettingsError

X = Service("one", "INVOICING_", ())


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
        ("{}=", ""),
        ("{}= # none", ""),
        ("{}=\t# none", ""),
        ("{}=#ff", "#ff"),
        ("{}='first\nA=1\nlast' # b", "first\nA=1\nlast"),
        ("A='first\nlast'\r\n{}=then", "then"),
        ("A.B=1\nA-B=2\n{}=beside", "beside"),
        ("{}=a\u2028b\x0cc\x85d", "a\u2028b\x0cc\x85d"),
        ("{}=''", ""),
        ("{}=first\n# {}=no\n{}=last", "last"),
        ("\ufeff{}=marked", "marked"),
        ("{}=crlf\r\n", "crlf"),
    ],
)
def test_a_line_sets(line: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(line.replace("{}", "INVOICING_X").encode())
    settings = Settings.load(file, {})
    assert settings.get(X, "X") == (value or None)
    assert settings.values["INVOICING_X"] == value


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


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_that_is_never_closed_is_refused(quote: str, tmp_path: Path) -> None:
    """By the line where it begins: the value would go on over all that follows, which is not shown."""
    file = tmp_path / "env"
    file.write_text(f"A=1\nB={quote}secret\nC=3\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, {})
    assert caught.value.faults == (f"{file} line 2: the value begins with {quote} and it is never closed",)


def test_where_a_value_came_from_is_known(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a\nINVOICING_A=1\nINVOICING_B=2\nINVOICING_C='3\n4'\nINVOICING_D=5\n")
    settings = Settings.load(file, {"INVOICING_B": "3", "OTHER": "4"})
    assert settings.sources == {
        "INVOICING_A": f"{file} line 2",
        "INVOICING_B": "the environment",
        "INVOICING_C": f"{file} line 4",
        "INVOICING_D": f"{file} line 6",
    }
