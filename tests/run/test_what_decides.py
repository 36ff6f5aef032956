"""What decides a result: an edit of what shows results forgets nothing, an edit of what makes them forgets all it must."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.models.source import ModelSource
from harness.models.tokenizer_only import TokenizerOnly
from harness.records.record import EnvironmentPart
from harness.run import applying
from harness.run.identity import DECIDES, ENVIRONMENT, Deciding, asked_by
from harness.run.preparing import Chosen
from harness.run.run import Run
from harness.run.shard import Shard

ROOT = Path(__file__).parents[2]
TOOLS = "plugins/harness_tool_tokens"
# Computes, in a process that has the copy on its path, all that an edit may forget.
ASKED = """
import json, sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import harness
from harness import own_code, plugins
from harness.methods.hidden_states import Frozen
from harness.models import loading
from harness.models.source import ModelSource
from harness.run.applying import work_folder
from harness.run.baselines import _software
from harness.run.identity import Deciding
from harness.run.journal import Journal
from harness.run.preparing import Chosen
from harness.run.run import Run

@dataclass(frozen=True)
class Idle:
    name: ClassVar[str] = "idle"

copy, model, files = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
assert Path(harness.__file__).is_relative_to(copy), harness.__file__
source, run = ModelSource("tiny", model), Run(tasks=(), plugin="tool_tokens", device="cpu")
lm = loading.load_lm(source, device="cpu", batch_size=1)

def now():
    own_code._digest_of.cache_clear()
    chosen = Chosen(run, plugins.load("tool_tokens"), Idle(), source)
    return {
        "run": Deciding(chosen).digest("run"),
        "work": work_folder(chosen, device="cpu").name,
        "journal": Journal(Path("out"), Deciding(chosen).picked("journal")).folder.name,
        "baseline": _software(run),
        "states": Frozen(lm).digest(),
    }

before, found = now(), {}
for name in files:
    path = copy / name
    content = path.read_bytes() if path.exists() else None
    path.write_bytes((content or b"") + b"\\n# edited\\n")
    after = now()
    found[name] = sorted(what for what in before if after[what] != before[what])
    path.write_bytes(content) if content is not None else path.unlink()
assert now() == before
print(json.dumps(found))
"""
ALL_BUT_THE_RUN = ["baseline", "journal", "states", "work"]
FORGETS: dict[str, list[str]] = {
    "harness/board/plots.py": [],
    "harness/board/templates/page.js": [],
    "harness/board/another.py": [],
    "harness/cli.py": [],
    "harness/commands/evaluate.py": [],
    "harness/comparing/tables.py": [],
    "harness/pages.py": [],
    "harness/records/record.py": [],
    "harness/run/summary.py": [],
    "harness/showing/runs.py": [],
    "harness/verifying/verify.py": [],
    f"{TOOLS}/README.md": [],
    f"{TOOLS}/__main__.py": [],
    f"{TOOLS}/report/page.py": [],
    f"{TOOLS}/report/another.py": [],
    f"{TOOLS}/report/templates/calls.js": [],
    "harness/models/causal.py": ALL_BUT_THE_RUN,
    "harness/models/tree/trie.py": ALL_BUT_THE_RUN,
    "harness/models/another.py": ALL_BUT_THE_RUN,
    "harness/methods/adapters.py": ALL_BUT_THE_RUN,
    "harness/methods/training.py": ALL_BUT_THE_RUN,
    "harness/seeds.py": ["baseline", "journal", "work"],
    "harness/run/lm_eval_calls.py": ["baseline", "journal"],
    "harness/tasks/numbers.py": ["baseline", "journal"],
    f"{TOOLS}/method.py": ["journal", "run", "work"],
    f"{TOOLS}/rows/training.py": ["journal", "run", "work"],
    f"{TOOLS}/answering/lm.py": ["journal", "run", "work"],
    f"{TOOLS}/tasks/tool_choice.yaml": ["journal", "run", "work"],
}


@dataclass(frozen=True)
class Writing:
    """Leaves the model alone and writes a file, and a report that is another each time."""

    name: ClassVar[str] = "writing"
    leaves_model_unchanged: ClassVar[bool] = True
    file: str = "rows/a.txt"
    text: str = "one"

    def apply(self, lm: Any, *, seed: int, workdir: Path) -> Any:
        """Write, and return ``lm``."""
        path = workdir / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text, encoding="utf-8")
        (workdir / "report.json").write_text(json.dumps({"seconds": os.urandom(4).hex()}), encoding="utf-8")
        return lm


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, list[str]]:
    """What each edit of a copy of the code forgets, by file."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("harness", TOOLS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (copy, copy / "plugins")))}
    done = subprocess.run(
        [sys.executable, "-B", "-c", ASKED, str(copy), str(tiny_model), json.dumps(list(FORGETS))],
        env=environment, cwd=copy, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("file", FORGETS)
def test_an_edit_forgets_what_the_file_decides_and_nothing_else(file: str, forgotten: dict[str, list[str]]) -> None:
    assert forgotten[file] == FORGETS[file]


@pytest.fixture
def chosen(tiny_model: Path) -> Chosen:
    """A method that trains nothing, on the tiny model."""
    return Chosen(Run(tasks=()), None, Writing(), ModelSource("tiny", str(tiny_model)))


# What a run says besides tasks, method and model, which are found by it.
DECIDING: dict[str, Any] = {
    "model_args": {"max_length": 8}, "num_fewshot": 2, "limit": 3, "samples": {"a": [1]}, "seeds": (1, 1, 1, 1),
    "gen_kwargs": {"temperature": 1}, "apply_chat_template": True, "system_instruction": "Be brief.", "metadata": {"a": 1},
}  # fmt: skip
DECIDING_NOTHING: dict[str, Any] = {
    "batch_size": 3, "output_path": Path("elsewhere"), "log_samples": False, "bootstrap_iters": 1, "with_baseline": True,
    "no_cache": True, "timeout_task": 9.0, "confirm_run_unsafe_code": True, "include_path": ("tasks",),
    "shard": Shard(1, 2),
}  # fmt: skip
# The device is known when the model is loaded; turns show in a run only beside a chat template.
FOUND = {"tasks", "plugin", "method", "method_args", "model", "quantization", "device", "fewshot_as_multiturn"}


def test_each_field_of_a_run_decides_or_decides_nothing() -> None:
    assert {field.name for field in fields(Run)} == {*DECIDING, *DECIDING_NOTHING, *FOUND}


@pytest.mark.parametrize("name", [*DECIDING, *DECIDING_NOTHING])
def test_a_setting_that_decides_gives_the_run_another_name(name: str, chosen: Chosen) -> None:
    other = replace(chosen, run=replace(chosen.run, **{name: (DECIDING | DECIDING_NOTHING)[name]}))
    is_another = Deciding(other).digest("run") != Deciding(chosen).digest("run")
    assert is_another == (Deciding(other).digest("journal") != Deciding(chosen).digest("journal")) == (name in DECIDING)


def test_a_seed_that_draws_nothing_names_no_other_run_of_the_untouched_model(chosen: Chosen) -> None:
    from harness.methods import Baseline

    runs = [replace(chosen, method=Baseline(), run=replace(chosen.run, seeds=(seed,) * 4)) for seed in (0, 1)]
    for is_drawn in (False, True):
        names = {Deciding(run, is_drawn=is_drawn).digest("run") for run in runs}
        assert len(names) == (2 if is_drawn else 1)


def test_all_of_the_table_has_a_value_and_all_of_the_environment_that_decides_is_in_it(chosen: Chosen) -> None:
    deciding = Deciding(chosen)
    assert [name for name in DECIDES if name not in ENVIRONMENT and not hasattr(deciding, name)] == []
    assert EnvironmentPart.model_fields.keys() - DECIDES.keys() == {"harness_commit", "threads_from"}
    assert set(asked_by("baseline")) <= ENVIRONMENT  # the rest is in the name of its run


@pytest.mark.parametrize(
    ("method", "is_same"),
    [
        (Writing(), True),
        (Writing(text="two"), False),
        (Writing(file="rows/b.txt"), False),
        (Writing(file="a.txt"), False),
    ],
)
def test_what_a_method_made_is_known_by_its_files_too(
    method: Writing, is_same: bool, chosen: Chosen, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = []
    for number, one in enumerate((Writing(), method)):
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / str(number)))
        digests.append(applying.apply_to(replace(chosen, method=one), TokenizerOnly(tokenizer)).digest)
    assert (digests[0] == digests[1]) == is_same


def test_a_model_that_is_left_unchanged_is_measured_before_and_after(
    chosen: Chosen, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Demand: that nothing changed is seen, not believed."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    looked, look = [], applying.LMState.of
    monkeypatch.setattr(applying.LMState, "of", lambda lm: looked.append(lm) or look(lm))
    applied = applying.apply_to(chosen, TokenizerOnly(tokenizer))
    assert (len(looked), applied.weights_changed) == (2, 0)
