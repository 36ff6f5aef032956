"""Training text: from a file, a folder, a Hugging Face dataset, or by default what every Python brings along."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.json_lines import read_json_lines, read_text
from harness.names import printable

DEFAULT_TEXT = "pydoc_data.topics"


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order; ``digest`` changes when any of them does."""

    name: str
    documents: Sequence[str] = field(repr=False)
    digest: str


def read(*, file: Path | None = None, dataset: str | None = None, split: str = "train", column: str = "text") -> Corpus:
    """Read training text.

    Args:
        file: UTF-8 text with one document per line, ``.jsonl`` with the text in ``column``, or a folder, of which each
            ``.txt`` or ``.md`` file is one document and each ``.jsonl`` file is read as above.
        dataset: name of a Hugging Face dataset (``name`` or ``name:config``), or a folder ``save_to_disk`` wrote.
        split: which split of the dataset.
        column: the column, or JSON key, that holds the text.

    Without ``file`` and ``dataset``: the documentation in ``pydoc_data.topics`` of the running Python.

    Raises:
        HarnessError: it does not exist, is empty, is no UTF-8 text, or lacks the column; or both are given.
    """
    if file is not None and dataset is not None:
        raise HarnessError("give either a training file or a training dataset, not both")
    if dataset is not None:
        return _from_dataset(dataset, split=split, column=column)
    if file is None:
        return _from_pydoc()
    documents = list(_from_path(file, column))
    if not documents:
        raise HarnessError(f"training text '{printable(file)}' is empty")
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode("utf-8", "surrogatepass") + b"\0")
    return Corpus(file.name, documents, digest.hexdigest())


def _from_path(path: Path, column: str) -> Iterator[str]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in {".txt", ".md", ".jsonl"} and p.is_file())
        if not files:
            raise HarnessError(f"folder '{printable(path)}' has no .txt, .md or .jsonl file to train on")
        for file in files:
            yield from _from_path(file, column) if file.suffix == ".jsonl" else filter(str.strip, [read_text(file)])
    elif path.suffix == ".jsonl":
        yield from (row[column] for row in read_json_lines(path, {column: str}) if row[column].strip())
    else:
        yield from (line for line in read_text(path).splitlines() if line.strip())


def _from_pydoc() -> Corpus:
    from pydoc_data.topics import topics

    documents = [topics[name] for name in sorted(topics)]
    return Corpus(DEFAULT_TEXT, documents, hashlib.sha256("\0".join(documents).encode()).hexdigest())


def _from_dataset(name: str, *, split: str, column: str) -> Corpus:
    import datasets

    datasets.disable_progress_bars()
    path, _, config = name.partition(":")
    try:
        if Path(path).is_dir() and (
            (Path(path) / "dataset_info.json").exists() or (Path(path) / "dataset_dict.json").exists()
        ):
            loaded: Any = datasets.load_from_disk(path)
            table = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            table = datasets.load_dataset(path, config or None, split=split)
    except Exception as error:  # whatever the hub, the disk or a file of it makes datasets raise
        cause = printable(str(error).splitlines()[0][:200]) if str(error) else type(error).__name__
        raise HarnessError(
            f"training dataset '{printable(name)}' (split {printable(split)}) cannot be loaded: {cause}"
        ) from error
    if column not in table.column_names:
        columns = ", ".join(printable(c) for c in table.column_names)
        raise HarnessError(
            f"training dataset '{printable(name)}' has no column '{printable(column)}'; it has {columns}"
        )
    kind = getattr(table.features[column], "dtype", type(table.features[column]).__name__)
    if kind not in {"string", "large_string"}:
        # datasets reads a JSON column whose texts all look like dates as dates, of which the text is lost.
        raise HarnessError(
            f"training dataset '{printable(name)}' has {printable(kind)} in its column '{printable(column)}', where text is due"
        )
    if not len(table):
        raise HarnessError(f"training dataset '{printable(name)}' is empty")
    return Corpus(
        name, table[column], hashlib.sha256(f"{name}|{split}|{column}|{table._fingerprint}".encode()).hexdigest()
    )
