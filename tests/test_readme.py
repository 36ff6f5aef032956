"""The README's plugin works as printed, and its commands exist."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonlines
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the code block that follows the marker of a plugin's file."""
    match = re.search(rf"<!-- plugin: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert match, f"README.md has no block {name}"
    return match[1]


@pytest.mark.xdist_group("runs")
def test_the_plugin_of_the_readme_is_short_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, forked: Callable[..., Any]
) -> None:
    import tomllib

    source = block("harness_jitter.py")
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
    project = tomllib.loads(block("pyproject.toml"))["project"]
    site = tmp_path / "site"
    info = site / f"harness_jitter-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "harness_jitter.py").write_text(source, encoding="utf-8")
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [f"{name} = {target}" for name, target in project["entry-points"]["harness"].items()]
    (info / "entry_points.txt").write_text("[harness]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))

    words = ["--plugin", "jitter", "--method_args", "scale=0.5", "--with_baseline", "--tasks", "langgame"]
    words += ["--limit", "2", "--output_path", "out"]
    done = forked("eval", *words, "--model_args", f"pretrained={tiny_model}", folder=tmp_path).wait()
    assert done.code == 0, done.err
    records = [record for file in (tmp_path / "out").rglob("records_*.jsonl") for record in jsonlines.open(file)]
    assert {record["method"]["name"] for record in records} == {"baseline", "jitter"}
    assert {record["plugin"]["distribution"] for record in records} == {None, "harness-jitter"}
    explained = forked("plugins", "jitter").wait().out
    assert "standard deviation of the noise" in explained and "number, default 0.1" in explained


def test_every_command_of_the_readme_parses() -> None:
    from harness.cli import build_parser

    code = re.sub(r"\\\n\s+", "", "\n".join(re.findall(r"```\n(.*?)```", README, re.DOTALL)))
    commands = [line.split("#")[0].split() for line in code.splitlines() if line.startswith("harness ")]
    assert len(commands) >= 6
    for words in commands:
        build_parser().parse_args(words[1:])


def test_files_the_readme_links_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        path, _, heading = target.partition("#")
        page = Path(__file__).parents[1] / path
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert heading in ["", *(re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings)], target
