"""Published data that a user has to bring, found by argument or environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import HarnessError
from harness.names import printable


def find(name: str | Path, folder: str | None = None, *, variable: str) -> Path:
    """Return a file by path, or by its name in the data folder.

    Args:
        name: taken as it is when something is there, else looked for in ``folder``, then in the folder that the
            environment variable names.
        folder: the data folder, as the user gave it.
        variable: the environment variable that may name a data folder, such as ``HARNESS_MY_DATA``.

    Raises:
        HarnessError: it is in none of these places, or ``folder`` is no folder.
    """
    path = Path(name).expanduser()
    return path if path.exists() else data_file(name, folder, variable=variable)


def data_file(name: str | Path, folder: str | None = None, *, variable: str) -> Path:
    """Return a file of the data folder, never one that happens to lie in the working directory.

    Args:
        name: of the file inside the folder.
        folder: the data folder, as the user gave it; it comes before that of the variable.
        variable: the environment variable that may name a data folder.

    Raises:
        HarnessError: no folder is named, or none of the named ones holds the file.
    """
    folders = [Path(text).expanduser() for text in (folder, os.environ.get(variable)) if text]
    shown = printable(name)
    how = f"name the folder with the environment variable {variable} (or, for a task, --metadata data_folder=DIR)"
    if not folders:
        raise HarnessError(f"'{shown}' is no file here and no data folder is named; {how}")
    for place in folders:
        if (place / name).is_file():
            return place / name
    looked = " nor in ".join(f"'{printable(place)}'" for place in folders)
    if not any(place.is_dir() for place in folders):
        raise HarnessError(f"the data folder {looked} does not exist, so '{shown}' is not there; {how}")
    raise HarnessError(f"there is no file '{shown}' in {looked}; put it there, or {how}")
