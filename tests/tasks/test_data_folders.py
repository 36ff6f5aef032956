"""Data that a user brings: found by path, by folder, by the variable of a plugin's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import HarnessError
from harness.tasks.data_folders import data_file, find

VARIABLE = "HARNESS_CLOCK_DATA"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders with files, the first one named by the variable, and an empty working directory."""
    for name, files in (("named", ("a", "b")), ("given", ("a",)), ("here", ())):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(name, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    return tmp_path / "named", tmp_path / "given"


def test_what_is_there_comes_first_then_the_given_folder_then_the_variables(folders: tuple[Path, Path]) -> None:
    named, given = folders
    assert find("a", variable=VARIABLE) == named / "a"
    assert find("a", str(given), variable=VARIABLE) == given / "a"
    assert find("b", str(given), variable=VARIABLE) == named / "b"
    assert find(named / "b", str(given), variable=VARIABLE) == named / "b"
    Path("a").write_text("here", encoding="utf-8")
    assert find("a", str(given), variable=VARIABLE) == Path("a")
    assert data_file("a", str(given), variable=VARIABLE) == given / "a"


def test_another_variable_names_another_folder(folders: tuple[Path, Path]) -> None:
    with pytest.raises(HarnessError, match=r"no data folder is named; .* variable HARNESS_OTHER .*data_folder=DIR"):
        find("a", variable="HARNESS_OTHER")


def test_what_is_not_there_says_where_it_was_looked_for(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    named, given = folders
    with pytest.raises(HarnessError, match=f"no file 'c' in '{given}' nor in '{named}'; put it there, or name"):
        find("c", str(given), variable=VARIABLE)
    monkeypatch.setenv(VARIABLE, str(named / "nowhere"))
    with pytest.raises(HarnessError, match=r"the data folder '.*nowhere' does not exist, so 'a' is not there"):
        data_file("a", variable=VARIABLE)
