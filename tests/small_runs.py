"""The command line called in this process, tasks of four documents, and methods of one statement."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked_runs import ForkedRuns, Started

DATA = """\
from datasets import Dataset

COLOURS = [("grass", 0), ("snow", 1), ("coal", 2), ("blood", 3)]


def make(*, length: int = 1, **_):
    rows = [
        {
            "question": "so it is said. " * (length - 1) + f"The colour of {thing} is",
            "options": ["green", "white", "black", "red"],
            "answer": answer,
        }
        for thing, answer in COLOURS
    ]
    return {"test": Dataset.from_list(rows)}
"""
COLOURS = """\
task: {name}
custom_dataset: !function data.make
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
  length: {length}
"""
WRITE = """\
task: write_colours
custom_dataset: !function data.make
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{options[answer]}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
METHOD = """\
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness import hookimpl


@dataclass(frozen=True)
class Invented:
    \"\"\"Does what a test says.

    Options:
        amount: how much of it.
    \"\"\"

    name: ClassVar[str] = "invented"
{members}
    amount: float = 0.5

    def apply(self, lm, *, seed: int, workdir: Path):
{body}


@hookimpl
def harness_methods():
    return [Invented]
"""


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line it ended with, and the only one that is an error."""
        [line] = [line for line in self.err.splitlines() if line.startswith("harness: ")]
        assert self.err.splitlines()[-1] == line, self.err
        return line


Command = Callable[..., Outcome]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test a cache and a working folder of its own, and no module of another test's plugin."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    for name in [name for name in sys.modules if name.startswith("third_party")]:
        del sys.modules[name]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that calls the command line in this process."""
    from harness.cli import main

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:  # argparse ends so
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def own_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks: ``colours``, ``long_colours`` whose prompts pass 256 tokens, and ``write_colours``."""
    folder = tmp_path_factory.mktemp("own-tasks")
    (folder / "data.py").write_text(DATA, encoding="utf-8")
    (folder / "colours.yaml").write_text(COLOURS.format(name="colours", length=1), encoding="utf-8")
    (folder / "long_colours.yaml").write_text(COLOURS.format(name="long_colours", length=90), encoding="utf-8")
    (folder / "write_colours.yaml").write_text(WRITE, encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(cli: Command, tiny_model: Path, own_tasks: Path) -> Command:
    """Return a function that runs ``harness eval`` on the tiny model and ``colours``, into ``out``, with more flags."""

    def run(*flags: object, model: object = None, tasks: object = "colours") -> Outcome:
        model = tiny_model if model is None else model
        arguments = ["--model_args", json.dumps({"pretrained": str(model)})]
        return cli("eval", *arguments, "--include_path", own_tasks, "--tasks", tasks, "--output_path", "out", *flags)

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, own_tasks: Path) -> Iterator[ForkedRuns]:
    """Processes of the command line that start at once, each forked from one that has made a run already.

    Tests that use them bear ``pytest.mark.xdist_group("runs")``: there is one such process then, not one for each worker.
    """
    words = ["eval", "--model_args", json.dumps({"pretrained": str(tiny_model)}), "--include_path", own_tasks]
    words += ["--tasks", "colours,write_colours", "--output_path", "out", "--with_baseline"]
    words += ["--plugin", "stochastok", "--method_args", "steps=2,batch_size=2,context_length=64"]
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cache").mkdir()
    (folder / "cache" / "kernels").symlink_to(Path(os.environ["HARNESS_CACHE"], "kernels").resolve())
    with ForkedRuns(folder, words) as started:
        yield started


@pytest.fixture
def forked(runs: ForkedRuns) -> Callable[..., Started]:
    """Return a function that starts the command line as a process of its own, in this folder and environment."""

    def start(*words: object, folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> Started:
        return runs.start(words, folder or Path.cwd(), environment=dict(environment))

    return start


@pytest.fixture
def make_method(make_plugin: Callable[..., Path]) -> Callable[..., str]:
    """Return a function that installs a plugin with one method, given the body of its ``apply``; its name comes back."""

    def make(body: str, *, plugin: str = "invention", members: str = "") -> str:
        source = METHOD.format(
            members=textwrap.indent(textwrap.dedent(members), "    "),
            body=textwrap.indent(textwrap.dedent(body), "        "),
        )
        make_plugin(plugin, source, distribution=f"third-party-{plugin}", module=f"third_party_{plugin}")
        return plugin

    return make


def _records(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("records_*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function that reads the records a run left in a folder, as plain JSON."""
    return _records
