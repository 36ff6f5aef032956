"""Training text: what each source gives, its digest, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.methods import corpus

LINES = ["Forty clocks ticked there.", "Noon took four minutes: naïve 🎉", "None was right."]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def as_json(lines: list[str], key: str = "text") -> list[str]:
    return [json.dumps({key: line, "more": 1}) for line in lines]


def test_every_source_gives_the_same_documents_in_order(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    write(folder / "a.jsonl", as_json(LINES[:1]))
    (folder / "b.md").write_text(LINES[1], encoding="utf-8")
    (folder / "deep" / "c.txt").write_text(LINES[2], encoding="utf-8")
    (folder / "d.py").write_text("not text to train on", encoding="utf-8")
    DatasetDict({"train": Dataset.from_dict({"text": LINES})}).save_to_disk(str(tmp_path / "saved"))
    sources: list[dict[str, Any]] = [
        {"file": write(tmp_path / "plain.txt", LINES)},
        {"file": write(tmp_path / "lines.jsonl", as_json([*LINES, " "]))},
        {"file": write(tmp_path / "body.jsonl", as_json(LINES, "body")), "column": "body"},
        {"file": folder},
        {"dataset": str(tmp_path / "saved")},
    ]
    for source in sources:
        assert list(corpus.read(**source).documents) == LINES, source


def test_a_text_in_json_keeps_every_character(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\n"
    file = write(tmp_path / "a.jsonl", [json.dumps({"text": text}, ensure_ascii=False)])
    assert list(corpus.read(file=file).documents) == [text]


def test_without_a_source_there_is_text_that_comes_with_python() -> None:
    found = corpus.read()
    assert found.name == "pydoc_data.topics" and len(found.documents) > 50 and found.digest == corpus.read().digest


def test_the_digest_is_of_the_documents_not_of_their_file(tmp_path: Path) -> None:
    one = corpus.read(file=write(tmp_path / "one.txt", LINES))
    same = corpus.read(file=write(tmp_path / "two.jsonl", as_json(LINES)))
    other = corpus.read(file=write(tmp_path / "three.txt", [*LINES[:2], LINES[2] + " "]))
    assert one.digest == same.digest != other.digest
    assert one.digest != corpus.read(file=write(tmp_path / "four.txt", LINES[::-1])).digest


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"\n \n", "training text '.*empty.txt' is empty"),
        ("empty.jsonl", b"\n", "empty.jsonl' is empty: it holds no row"),
        ("blank.jsonl", b'{"text": " "}', "training text '.*blank.jsonl' is empty"),
        ("latin.txt", b"na\xefve", "latin.txt' is no UTF-8 text: byte 2 cannot be read"),
        ("nul.txt", b"a\0", "it holds NUL bytes"),
        ("number.jsonl", b'{"text": "a"}\n{"text": 5}', "number.jsonl, line 2, has no text under 'text'"),
        ("missing/", None, "cannot read '.*missing': No such file"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(HarnessError, match=words):
        corpus.read(file=tmp_path / name)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"body": LINES}, "has no column 'text'; it has body"),
        ({"text": [1, 2]}, "has int64 in its column 'text', where text is due"),
        ({"text": [["a"], ["b"]]}, "has List in its column 'text', where text is due"),
    ],
)
def test_a_dataset_without_text_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    from datasets import Dataset

    Dataset.from_dict(columns).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(HarnessError, match=words):
        corpus.read(dataset=str(tmp_path / "saved"))


def test_texts_that_all_look_like_dates_are_not_trained_on_as_dates(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", as_json(["2026-11-30T00:00:00", "2026-12-01T00:00:00"]))
    assert corpus.read(file=tmp_path / "train.jsonl").documents[0] == "2026-11-30T00:00:00"
    with pytest.raises(HarnessError, match=r"has timestamp\[\w+\] in its column 'text', where text is due"):
        corpus.read(dataset=str(tmp_path))


def test_one_source_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="either a training file or a training dataset, not both"):
        corpus.read(file=tmp_path, dataset="some")
    with pytest.raises(HarnessError, match=r"has no \.txt, \.md or \.jsonl file"):
        corpus.read(file=tmp_path)
