"""The examples of docs/building-blocks.md run as they are printed, and the page names what plugins may import."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from harness.models.finding import resolve
from harness.models.loading import load_lm

PAGE = (Path(__file__).parents[1] / "docs" / "building-blocks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
# They need no model.
PLAIN = {
    "Training text",
    "Random streams",
    "JSON lines",
    "Long work in parts",
    "Data folders",
    "Metrics of vectors",
    "Numbers in answers",
    "Pages",
    "A command of your own",
}


def block(section: str) -> str:
    """Return the one example of a section."""
    [found] = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
    return str(found)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_runs_as_it_is_printed(
    section: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    names: dict[str, Any] = {"workdir": tmp_path / "work", "__name__": "example"}
    if section not in PLAIN:
        names["lm"] = load_lm(resolve({"pretrained": str(tiny_model)}), device="cpu", batch_size=1)
    exec(compile(block(section), section, "exec"), names)


@pytest.mark.parametrize("section", SECTIONS)
def test_an_example_is_short_and_imports_what_plugins_may(section: str) -> None:
    from test_house import PUBLIC, is_within

    source = block(section)
    assert len(source.splitlines()) <= 25
    modules = re.findall(r"^from (harness\S*) import ", source, re.MULTILINE)
    assert modules
    for module in modules:
        importlib.import_module(module)
        assert any(place.startswith(f"{module}.") or is_within(module, place) for place in PUBLIC), module


def test_the_table_of_contents_links_every_section() -> None:
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in SECTIONS]
    assert sorted(re.findall(r"\]\(#([^)]+)\)", PAGE)) == sorted(anchors)


def test_files_the_page_links_exist() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / target).exists(), target
