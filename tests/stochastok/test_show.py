"""``python -m harness_stochastok``: what a user sees of an expansion."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from stochastok_vocabularies import build_family

from harness_stochastok.__main__ import main, mark_pieces

TEXT = "The cuckoo bowed\tnaïvely \\ | 🎉"


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """Return the lines that a command prints."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out.splitlines()


def unmarked(line: str) -> str:
    """Return the text of a line of pieces, without marks and escapes."""
    text = b""
    for byte, escaped, plain in re.findall(r"\\x(..)|\\(.)|([^|·])", line[5:]):
        text += bytes.fromhex(byte) or {"t": b"\t"}.get(escaped) or (escaped + plain).encode()
    return text.decode()


def test_five_expansions_with_their_growth(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default five draws of each proportion, each with a line of figures that follows from its marks."""
    lines = shown(capsys, "The clocks ticked there.", "--tokenizer", tiny_model, "--proportion", 0.5, 2)
    assert len(lines) == 2 + 2 * (2 + 2 * 5)
    tokens = lines[1].count("|") + 1
    assert lines[0].startswith(f"{tokens} tokens")
    for title, proportion in (("stochastok, proportion 0.5", 0.5), ("stochastok, proportion 2", 2)):
        start = lines.index(title) + 1
        for draw, (marked, growth) in enumerate(
            zip(lines[start : start + 10 : 2], lines[start + 1 :: 2], strict=False)
        ):
            cuts = marked.count("·")
            assert marked.startswith(f"{draw + 1:>3}  ")
            assert marked.count("|") + 1 == tokens
            assert growth.strip().startswith(f"{tokens} tokens -> {tokens + cuts} pieces")
            attempts = int(tokens * proportion)
            assert f"{attempts} attempt{'s' * (attempts != 1)}, {cuts} success" in growth


def test_same_seed_shows_the_same(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed decides what is shown, and draws differ."""
    words = (TEXT, "--tokenizer", tiny_model, "--proportion", 1, "--draws", 3)
    first = shown(capsys, *words, "--seed", 4)
    assert first == shown(capsys, *words, "--seed", 4)
    assert first != shown(capsys, *words, "--seed", 5)
    assert len({line[5:] for line in first[4::2]}) == 3


@pytest.mark.parametrize("scheme", [["--proportion", 2], ["--scheme", "bpe_dropout", "--dropout", 0.5]])
def test_marks_and_escapes_can_be_told_from_the_text(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], scheme: list[object]
) -> None:
    """Tabs, parts of a character, backslashes and bars are escaped; without marks the text is the one given."""
    lines = shown(capsys, TEXT, "--tokenizer", tiny_model, "--draws", 2, *scheme)
    assert "\t" not in "".join(lines)
    assert [unmarked(lines[number]) for number in (1, 4, 6)] == [TEXT] * 3


def test_every_kind_of_cut_is_marked() -> None:
    """Borders of tokens and cuts inside them look different; a border that was merged over does not show."""
    spelling = {1: b"ab", 2: b"c|", 3: b"a", 4: b"b", 5: b"\xc3", 6: b"\xbc", 7: "ü".encode(), 8: b"bc|", 9: b"\n\\"}
    assert mark_pieces([1, 2], [1, 2], spelling) == "ab|c\\|"
    assert mark_pieces([1, 2], [3, 4, 2], spelling) == "a·b|c\\|"
    assert mark_pieces([1, 2], [3, 8], spelling) == "a·bc\\|"
    assert mark_pieces([7, 9], [5, 6, 9], spelling) == "\\xc3·\\xbc|\\n\\\\"
    assert mark_pieces([], [], spelling) == ""


def test_dropout_shows_without_attempts(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BPE-dropout counts no attempts."""
    lines = shown(capsys, "The clocks", "--tokenizer", tiny_model, "--scheme", "bpe_dropout", "--dropout", 1)
    assert "bpe_dropout, dropout 1" in lines
    assert "10 pieces" in lines[-1] and "attempt" not in lines[-1]


def test_special_tokens_are_shown_by_name(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are tokens too, and stay whole."""
    lines = shown(capsys, "a<|end|>b", "--tokenizer", tiny_model, "--proportion", 9, "--draws", 1)
    assert lines[4] == "  1  a|<\\|end\\|>|b"


def test_empty_text_is_shown(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to split is no error."""
    assert shown(capsys, "", "--tokenizer", tiny_model, "--draws", 1)[0].startswith("0 tokens")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--proportion", "-1"], "proportion -1.0 is not possible"),
        (["--proportion", "nan"], "proportion nan is not possible"),
        (["--draws", "0"], "--draws 0 shows nothing; give 1 or more"),
        (["--scheme", "bpe_dropout", "--dropout", "2"], "dropout 2.0 is not possible"),
        (["--tokenizer", "./no/such/folder"], "no/such/folder"),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """A mistake the user can correct prints nothing but one sentence on the error stream."""
    if "--tokenizer" not in words:
        words = [*words, "--tokenizer", str(tiny_model)]
    assert main(["text", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err and printed.err.count("\n") == 1


def test_help_teaches_without_loading_anything() -> None:
    """``--help`` explains the marks, shows commands, and is there before torch would be."""
    program = (
        "import runpy, sys; sys.argv = ['harness_stochastok', '--help']\n"
        "try: runpy.run_module('harness_stochastok', run_name='__main__')\n"
        "finally: print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8")
    assert answer.returncode == 0
    assert "how to read it" in answer.stdout and "examples:" in answer.stdout
    assert answer.stdout.endswith("False\n")


def test_other_families_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """WordPiece and sentencepiece show where a word starts."""
    for name, start in (("wordpiece", " "), ("sentencepiece", "▁"), ("unigram", "▁")):
        monkeypatch.setattr("harness.models.finding.load_tokenizer", lambda _, name=name: build_family(name))
        assert shown(capsys, "ferryman", "--draws", 1)[1].startswith(f"     {start}f")
