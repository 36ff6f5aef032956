"""What a record names that would run as code: whoever runs the record again has to name it again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.run import Run

# What methods and tasks read and do not run; of the second kind, those that name a Python file are run by it.
DATA = frozenset(
    {".txt", ".text", ".md", ".csv", ".tsv", ".parquet", ".arrow", ".safetensors", ".gz", ".zst", ".bz2", ".xz"}
)
TABLES = frozenset({".json", ".jsonl", ".toml"})
CODE = frozenset(
    {".py", ".pyc", ".pyw", ".pyd", ".so", ".dll", ".dylib", ".sh", ".ipynb", ".yaml", ".yml"}
    | {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".whl", ".egg", ".zip", ".jar"}
)
MOST_FILES = 10_000
# Of --gen_kwargs, what has transformers run code that it fetches.
GENERATE = frozenset({"custom_generate", "trust_remote_code"})
BLOCK_BYTES = 1 << 20


def refuse_unnamed(record: Record, run: Run, given: Mapping[str, Collection[str]]) -> None:
    """Raise where running a record again would run code that the record alone names.

    Args:
        run: what is going to run, with what was named on the command line.
        given: the names that were given there, by flag.

    Raises:
        HarnessError: it names the first such thing, and how to say that it is trusted.
    """
    if record.task.name.lower().endswith((".yaml", ".yml")):
        raise HarnessError(
            f"the record's task '{printable(record.task.name)}' is the name of a file, which no task has"
        )
    for flag, name, value in _code(record, run):
        if name not in given.get(flag, ()):
            text = printable(value)[:200]
            raise HarnessError(
                f"the record names what would run as code, {flag} {printable(name)}={text}; if you trust it, give {flag} "
                f"{printable(name)}=... yourself"
            )


def _code(record: Record, run: Run) -> Iterator[tuple[str, str, Any]]:
    """Yield flag, name and value of what may run as code."""
    options = {} if record.is_baseline else {**record.method.options, **run.method_args}
    for name, value in options.items():
        if any(_is_code(text) for text in _texts(value)):
            yield "--method_args", name, value
    for name, value in run.metadata.items():
        if any("/" in text or "\\" in text or _is_code(text) for text in _texts(value)):
            yield "--metadata", name, value
    for name in sorted(GENERATE & run.gen_kwargs.keys()):
        yield "--gen_kwargs", name, run.gen_kwargs[name]
    attention = run.model_args.get("attn_implementation")
    if isinstance(attention, str) and "/" in attention:  # transformers fetches such a kernel, and runs it
        yield "--model_args", "attn_implementation", attention
    if run.model_args.get("trust_remote_code"):
        for name in ("pretrained", "tokenizer"):
            if name in run.model_args:
                yield "--model_args", name, run.model_args[name]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from (*_texts(name), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _is_code(text: str) -> bool:
    """Return whether a text names a file that may run, or that names one; a folder does when one of its files does."""
    name = re.sub(r"\[:-?\d+\]$", "", text.strip())
    with suppress(OSError, ValueError):  # no name of a file
        path = Path(name).expanduser()
        if path.suffix.lower() in CODE:
            return True
        if path.is_dir():
            files = [file for _, file in zip(range(MOST_FILES), path.rglob("*"), strict=False) if file.is_file()]
            return len(files) >= MOST_FILES - 1 or any(_runs(file) for file in files)
        return path.is_file() and _runs(path)
    return False


def _runs(file: Path) -> bool:
    kind = file.suffix.lower()
    return kind not in DATA and (kind not in TABLES or _mentions_python(file))


def _mentions_python(file: Path) -> bool:
    before = b""
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            if b".py" in (before + block).lower():
                return True
            before = block[-2:]
    return False
