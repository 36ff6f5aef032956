"""A results folder as a run leaves it, made once: baseline and a method, choices and a generated text."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.cli import main

TASK = """\
task: {name}
custom_dataset: !function data.make
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{more}
metadata:
  version: 1.0
"""
CHOICES = """\
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
WRITING = """\
doc_to_target: "{{options[answer]}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
DATA = """\
from datasets import Dataset

COLOURS = [("grass", 0), ("snow", 1), ("coal", 2), ("blood", 3), ("the sea", 0), ("a cloud", 1)]


def make(**_):
    rows = [
        {
            "question": f"The colour of {thing} \\u2028 is",
            "options": ["green", "white", "black", "red"],
            "answer": answer,
        }
        for thing, answer in COLOURS
    ]
    return {"test": Dataset.from_list(rows)}
"""


def write_tasks(folder: Path) -> Path:
    """Write the tasks ``colours`` and ``write_colours`` of six documents into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    for name, kind, more in (("colours", "multiple_choice", CHOICES), ("write_colours", "generate_until", WRITING)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, more=more), encoding="utf-8")
    return folder


def _made(model: Path, folder: Path, seed: int) -> Path:
    """Run one method and its baseline on two tasks; return the results folder."""
    tasks = write_tasks(folder / "tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status = main([
            "eval", "--plugin", "stochastok", "--method_args", "steps=1", "--with_baseline", "--seed", str(seed),
            "--model_args", f"pretrained={model}", "--include_path", str(tasks),
            "--tasks", "colours,write_colours", "--output_path", str(folder / "results"),
        ])  # fmt: skip
    assert status == 0
    return folder / "results"


@pytest.fixture(scope="session")
def made_results(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records, samples and lm-eval's files of one method and its baseline on two tasks; not to be changed."""
    return _made(tiny_model, tmp_path_factory.mktemp("published"), 0)


@pytest.fixture(scope="session")
def other_results(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another seed, as somebody else would run it; not to be changed."""
    return _made(tiny_model, tmp_path_factory.mktemp("other"), 1)


@pytest.fixture
def results(made_results: Path, tmp_path: Path) -> Path:
    """A copy of the results folder that a test may change."""
    return Path(shutil.copytree(made_results, tmp_path / "results"))
