"""``harness prepare``: what is fetched lets a machine without the Hub compute, and what is missing is told with its cure."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_of_files import hub_of
from small_runs import Command

from harness.run.run import Run
from harness.sweeps.cures import missing
from harness.sweeps.fetching import Place, chosen
from harness.sweeps.proving import METHOD, MODEL, distinct

DATA = [{"question": "The colour of grass is", "options": ["green", "white"], "answer": 0}]
TASK = """\
task: hub_colours
dataset_path: ada/colours
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""
# Imported by every Python process whose path has it: whoever asks for another machine is refused, and noted.
BLOCKED = """\
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
        raise OSError("sockets are blocked")

sys.addaudithook(refuse)
"""


@pytest.fixture
def hub_root(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder of what a stand-in gives out: ``ada/tiny``, with files that nobody reads, and the data set ``ada/colours``."""
    model, data = tmp_path / "root/models/ada/tiny", tmp_path / "root/datasets/ada/colours"
    shutil.copytree(tiny_model, model)
    (model / "pytorch_model.bin").write_bytes(b"the same weights again")
    (model / "README.md").write_text("about it", encoding="utf-8")
    data.mkdir(parents=True)
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DATA), encoding="utf-8")
    (data / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/hub_colours.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path / "root"


def test_a_cell_runs_with_sockets_blocked_after_it_was_prepared(
    tmp_path: Path, hub_root: Path, harness: Callable[..., Any], records: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """Model and data set come from the Hub once; then neither it nor any other machine is asked again."""
    flags = ["--model_args", "pretrained=ada/tiny", "--tasks", "hub_colours", "--include_path", tmp_path / "tasks"]
    flags += ["--output_path", tmp_path / "out"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "hf")
    }
    with hub_of(hub_root) as (address, asked):
        prepared = harness("prepare", *flags, env=own | {"HF_ENDPOINT": address})
        assert prepared.returncode == 0, prepared.stderr
        assert not any("pytorch_model.bin" in line or "ada/tiny/resolve/main/README" in line for line in asked)
        assert "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME=" in prepared.stdout
        del asked[:]
        again = harness("prepare", *flags, env=own | {"HF_ENDPOINT": address})
        assert again.returncode == 0, again.stderr
        assert not [line for line in asked if line.startswith("GET") and "safetensors" in line]
    assert not (tmp_path / "out").exists()

    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    off = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "ASKED": str(tmp_path / "asked")}
    run = harness("eval", *flags, env=own | off | {"PYTHONPATH": str(tmp_path / "blocked")})
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text(encoding="utf-8")
    assert [record["metric"]["name"] for record in records(tmp_path / "out")] == ["acc"]


@pytest.mark.usefixtures("fresh")
def test_what_is_missing_is_told_with_its_cure(cli: Command, own_tasks: Path) -> None:
    """Nothing stops at the first thing that is missing, and nothing is left behind."""
    found = cli("prepare", "--model_args", "pretrained=ada/tiny", "--tasks", "colours", "--include_path", own_tasks)
    assert found.code == 1
    assert "model ada/tiny: " in found.out and "env -u HF_HUB_OFFLINE" in found.out
    assert "there: 1 task" in found.out
    assert not Path("results").exists()


@pytest.mark.usefixtures("fresh")
def test_mistakes_are_told_all_at_once(cli: Command, own_tasks: Path, tiny_model: Path) -> None:
    """A wrong option and a task that does not exist: 2, as nothing that is fetched would help."""
    words = ["prepare", "--model_args", f"pretrained={tiny_model}", "--include_path", own_tasks, "--json"]
    found = cli(*words, "--plugin", "stochastok", "--method_args", "stesp=1", "--tasks", "colours,colors")
    assert found.code == 2
    missing = json.loads(found.out)["missing"]
    assert [(one["what"], one["is_mistake"]) for one in missing] == [
        ("method stochastok stesp=1", True),
        ("task colors", True),
    ]


@pytest.mark.usefixtures("fresh")
def test_a_task_that_does_not_fit_the_model_is_told(cli: Command, own_tasks: Path, tiny_model: Path) -> None:
    words = ["--model", "tokenizer", "--model_args", f"pretrained={tiny_model}", "--include_path", own_tasks]
    found = cli("prepare", *words, "--tasks", "colours,fertility")
    assert found.code == 2
    assert "sends 'loglikelihood' requests, which" in found.out


@pytest.mark.usefixtures("fresh")
def test_a_sweep_is_prepared_by_its_file_whose_paths_begin_in_its_folder(
    cli: Command, own_tasks: Path, tiny_model: Path
) -> None:
    """Every cell of a file is proved, from whatever folder; a mistake in the file is told with its line."""
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "model").symlink_to(tiny_model)
    words = f"tasks: [colours, write_colours]\ninclude_path: {own_tasks}\nmodel_args: {{pretrained: model}}\n"
    (folder / "s.yaml").write_text(words, encoding="utf-8")
    done = cli("prepare", folder / "s.yaml")
    assert done.code == 0, done.err
    assert "all 2 cells load" in done.out
    assert "harness sweep run" in done.out
    assert not (folder / "results").exists()
    (folder / "s.yaml").write_text("tsks: colours\n", encoding="utf-8")
    wrong = cli("prepare", folder / "s.yaml")
    assert wrong.code == 2
    assert "s.yaml:1: 'tsks' is neither a flag" in wrong.err


@pytest.mark.usefixtures("fresh")
def test_nothing_to_prepare_is_one_sentence(cli: Command) -> None:
    assert cli("prepare").sentence.startswith("harness: nothing to prepare: name a sweep's file")


def test_each_combination_is_tried_once() -> None:
    runs = [
        Run(
            tasks=("langgame",),
            plugin="stochastok",
            method_args={"scheme": scheme},
            seeds=(seed,) * 4,
            quantization=kind,
        )
        for scheme in ("none", "stochastok")
        for seed in range(3)
        for kind in ("none", "nf4")
    ]
    assert [run.quantization for run in distinct(runs, MODEL)] == ["none", "nf4"]
    assert [run.method_args["scheme"] for run in distinct(runs, METHOD)] == ["none", "stochastok"]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place("a/b"), ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                        "model.safetensors.index.json", "tokenizer.json", "1_Pooling/config.json"]),
        (Place("a/b", code=True, weights=False), ["config.json", "modeling.py", "tokenizer.json", "model.safetensors.index.json",
                                                  "1_Pooling/config.json"]),
        (Place("a/b", gguf_file="q4.gguf"), ["config.json", "q4.gguf", "tokenizer.json", "model.safetensors.index.json",
                                             "1_Pooling/config.json"]),
        (Place("a/b", subfolder="step_2"), ["config.json", "tokenizer.json", "model.safetensors.index.json",
                                            "step_2/config.json", "step_2/pytorch_model.bin", "1_Pooling/config.json"]),
    ],
)  # fmt: skip
def test_of_a_repository_only_what_is_read_is_fetched(place: Place, expected: list[str]) -> None:
    """Weights in the first form that transformers looks for, not in three; no other framework's, no pictures."""
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
             "model-00002-of-00002.safetensors", "pytorch_model.bin", "consolidated.safetensors", "tf_model.h5", "q4.gguf",
             "README.md", "modeling.py", "onnx/model.onnx", "original/consolidated.00.pth", "step_2/config.json",
             "step_2/pytorch_model.bin", "step_2/optimizer.pt", "1_Pooling/config.json"]  # fmt: skip
    assert chosen(place, names) == sorted(expected)


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (ModuleNotFoundError("No module named 'langdetect'", name="langdetect"), "pip install 'lm_eval[ifeval]'"),
        (LookupError("Resource punkt_tab not found. Please use: >>> import nltk >>> nltk.download('punkt_tab')"),
         "python -m nltk.downloader punkt_tab"),
        (OSError("[E050] Can't find model. python -m spacy download en_core_web_sm"), "python -m spacy download en_core_web_sm"),
        (OSError("You are trying to access a gated repo, 403"), "hf auth login    # and ask for access at https://huggingface.co/a/b"),
        (OSError(28, "No space left on device"), "HF_HOME=/a/folder/with/room harness prepare x.yaml"),
        (ValueError("option 'steps' is -1"), ""),
    ],
)  # fmt: skip
def test_an_error_has_the_command_that_cures_it(error: Exception, cure: str) -> None:
    found = missing("task x", error, again="harness prepare x.yaml", place="a/b")
    assert (found.cure, found.is_mistake) == (cure, not cure)
