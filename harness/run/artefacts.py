"""The copy of a method's work folder beside a run's records: by links, without secrets, with what others put there."""

from __future__ import annotations

import json
from pathlib import Path

from harness.folders import carry_over, link_tree, new_folder, write_atomic
from harness.redaction import redact, redact_json

TEXTS = frozenset({".md", ".json", ".jsonl", ".txt", ".html", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".log"})
# What a tokenizer is made of: its tokens are its own, whatever they are called.
OF_A_TOKENIZER = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"})
MOST_BYTES = 32 << 20


def save(workdir: Path, target: Path) -> None:
    """Put ``target`` in the place of what an earlier run wrote there; what only the old folder has stays in it.

    Raises:
        OSError: the disk refuses, or a link is where the folder should be.
    """
    with new_folder(target) as folder:
        link_tree(workdir, folder)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in TEXTS and path.name not in OF_A_TOKENIZER and path.is_file():
                clean_file(path)
        if target.is_dir():
            carry_over(target, folder)


def clean_file(path: Path) -> None:
    """Take the secrets out of a text file; one that has none, or is no text, stays the file that it is."""
    if path.stat().st_size > MOST_BYTES:
        return
    try:
        text = path.read_text(encoding="utf-8")
        cleaner = _CLEANING.get(path.suffix.lower(), redact)(text)
    except (ValueError, RecursionError):  # not what its name says
        return
    if cleaner != text:
        write_atomic(path, cleaner)


def _clean_json(text: str, *, indent: int | None = 2) -> str:
    value = json.loads(text)
    cleaner = redact_json(value)
    return text if cleaner == value else json.dumps(cleaner, indent=indent, ensure_ascii=False)


def _clean_lines(text: str) -> str:
    return "".join(_clean_line(line) for line in text.splitlines(keepends=True))


def _clean_line(line: str) -> str:
    body = line.rstrip("\r\n")
    return (_clean_json(body, indent=None) if body.strip() else body) + line[len(body) :]


_CLEANING = {".json": _clean_json, ".jsonl": _clean_lines}
