"""The user's own copy of the data, as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import HarnessError
from harness.json_lines import Keys, Row, read_json_lines
from harness.names import printable
from harness.tasks import data_folders

FOLDER_VARIABLE = "HARNESS_EMBEDDING_DATA"


def rows(metadata: Mapping[str, Any], key: str, keys: Keys) -> list[Row]:
    """Return the rows of the file that the task's metadata names under ``key``.

    Args:
        metadata: with the file's name, and ``data_folder`` where the user gave one.
        key: such as ``file``.
        keys: what each row has to hold.

    Raises:
        HarnessError: no folder is named, the file is not in it, or is of another form.
    """
    path = data_folders.data_file(str(metadata[key]), metadata.get("data_folder"), variable=FOLDER_VARIABLE)
    found = read_json_lines(path, keys)
    if not found:
        raise HarnessError(f"'{printable(path)}' has no rows")
    return found


def instruction(metadata: Mapping[str, Any]) -> str | None:
    """Return the task in words, for models that take it; None where the metadata has none."""
    return str(metadata["instruction"]) if metadata.get("instruction") else None


def check_filled(name: str, texts: Mapping[Any, str]) -> None:
    """Raise ``HarnessError`` for a text that holds nothing: it would be as near to every other as to none."""
    for number, text in texts.items():
        if not text.strip():
            raise HarnessError(f"{name}: text {printable(number)} is empty; take it out of the file")
