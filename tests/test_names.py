"""Foreign names: one safe path component each, and nothing on a terminal that steers it."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from harness.names import printable, safe_name, suggestion

NASTY = [
    "", " ", ".", "..", "...", "../x", "..\\x", "/", "//", "/etc/passwd", "~", "~root", "a/b", "a:b", "a\\b", "a b", "a\tb",
    "a\nb", "a\0b", "\0", "con", "CON", "nul.txt", "aux", "com1", "LPT9.log", "x.", "x..", "x ", " x", ".hidden", "..hidden",
    "-rf", "--help", "a|b", "a*b", "a?b", 'a"b', "a<b>", "$HOME", "`id`", "$(id)", "%00", "%2e%2e%2f", "a;b", "a&b", "a'b",
    "a#b", "\x1b[31mred", "model[/b]", "[link=x]y", "\u00e9", "e\u0301", "\u00f1", "n\u0303", "\u00c5", "\u212b", "\ufb01",
    "fi", "ß", "ss", "\u0130", "i\u0307", "漢字", "漢字 ", "🎉", "🎊", "\U0001f469\u200d\U0001f467", "\u202egnp.exe", "\u200bx",
    "x\u200b", "\ufeffx", "a\u2028b", "\ud800", "\udcff", "x" * 99, "x" * 100, "x" * 101, "x" * 300, "x" * 300 + "y",
    "é" * 300, "a/" * 200, "." * 300, "name", "name-", "_", "__", "a_b", "a__b", "a.b", "a..b", "meta/llama", "meta_llama",
]  # fmt: skip


def nasty_names() -> list[str]:
    """Return 200 different names: those above, and random ones of characters that trouble somebody."""
    generator, names = random.Random(0), dict.fromkeys(NASTY)
    while len(names) < 200:
        names[
            "".join(generator.choices('ab./\\:*?"<>| \0\n\x1b~é漢🎉\u202e\ud800-_', k=generator.randrange(1, 12)))
        ] = None
    return list(names)


def test_two_hundred_nasty_names_become_different_components_that_stay_inside(tmp_path: Path) -> None:
    names = nasty_names()
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names) == 200
    folder = tmp_path / "names"
    folder.mkdir()
    for name, component in zip(names, safe, strict=True):
        assert 1 <= len(component.encode()) <= 100, name
        assert component.isascii()
        assert component.isprintable()
        path = folder / component
        assert path.parent == folder
        assert path.resolve().parent == folder.resolve()
        path.write_text(component, encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == sorted(safe)


@pytest.mark.parametrize("name", ["smollm2-135m", "arc_easy", "a.b-c_d", "0", "x" * 100])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["con", "CON", "nul.txt", "Aux.a.b", "com1.log", "lpt9"])
def test_no_component_is_a_device_on_windows(name: str) -> None:
    assert safe_name(name).split(".")[0].lower() not in {"con", "nul", "aux", "com1", "lpt9"}


@pytest.mark.parametrize(("one", "other"), [("Model", "model"), ("A/b", "a/b"), ("Straße", "STRASSE")])
def test_names_that_differ_only_in_case_do_not_share_a_path_where_case_is_ignored(one: str, other: str) -> None:
    assert safe_name(one).casefold() != safe_name(other).casefold()


def test_no_name_can_be_chosen_to_share_the_path_of_another() -> None:
    victim = "meta-llama/Llama 3"
    assert safe_name(safe_name(victim)) != safe_name(victim)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünï 漢字 🎉", "plain text, ünï 漢字 🎉"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]8;;https://evil\x07click\x1b]8;;\x07", "␛]8;;https://evil␇click␛]8;;␇"),
        ("a\nb\r\tc", "a␊b␍␉c"),
        ("a\0b\x7f\x08", "a␀b␡␈"),
        ("\x9b31m", "<U+009B>31m"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),
        ("a\u200bb\ufeff", "a<U+200B>b<U+FEFF>"),
        ("a\u2028b", "a<U+2028>b"),
        ("\ud800", "<U+D800>"),
        ("model[/b]", "model[/b]"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_text_holds_no_control_and_can_be_encoded() -> None:
    for name in nasty_names():
        shown = printable(name)
        shown.encode("utf-8")
        assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in shown)


def test_a_suggestion_names_the_nearest_or_all_or_how_many() -> None:
    assert suggestion("langame", ["langgame", "cute"]) == "did you mean 'langgame'?"
    assert suggestion("zzz", ["b", "a", "a"]) == "there is a, b"
    assert suggestion("zzz", []) == "there is none"
    assert suggestion("zzz", [f"task{n}" for n in range(50)]) == "none of the 50 there are is spelled like it"
    assert "\x1b" not in suggestion("x\x1b[1m", ["x\x1b[2m", "y"])
