"""sweep.yaml read: which commands it gives, and the line of each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.sweeps.cell import Sweep
from harness.sweeps.identity import identity
from harness.sweeps.spec import read


def written(folder: Path, text: str) -> Path:
    """Write a sweep's file."""
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def sweep(folder: Path, text: str) -> Sweep:
    """Return the sweep that a text describes."""
    return read(written(folder, text))


def titles(folder: Path, text: str) -> list[str]:
    """Return what tells the cells of a text apart."""
    return [cell.title for cell in sweep(folder, text).cells]


PLAIN = """\
plugin: stochastok
method_args: {scheme: [none, stochastok], steps: 4}
tasks: langgame
limit: 4
quantization: [none, nf4]
seed: 0..1
"""


def test_lists_are_axes_of_which_the_last_varies_fastest(tmp_path: Path) -> None:
    """Two schemes, two quantisations, two seeds, and the untouched model once for each quantisation, first."""
    found = sweep(tmp_path, PLAIN)
    assert [cell.title for cell in found.cells] == [
        "method=baseline quantization=none",
        "method=baseline quantization=nf4",
        *(
            f"scheme={s} quantization={q} seed={n}"
            for s in ("none", "stochastok")
            for q in ("none", "nf4")
            for n in (0, 1)
        ),
    ]
    assert found.cells[0].run.command() == "harness eval --tasks langgame --limit 4 --seed 0,0,0,0"
    assert found.cells[-1].run.command() == (
        "harness eval --tasks langgame --plugin stochastok --method_args scheme=stochastok,steps=4 --quantization nf4 --limit 4 "
        "--seed 1,1,1,1"
    )
    assert (found.folder, found.output) == (tmp_path, tmp_path / "results")


def test_a_cell_keeps_its_name_when_axes_are_added(tmp_path: Path) -> None:
    """The file edited while it runs: what was a value is a list now, and all that was done is still known."""
    before = {cell.key for cell in sweep(tmp_path, PLAIN).cells}
    after = {cell.key for cell in sweep(tmp_path, PLAIN.replace("steps: 4", "steps: [4, 8]")).cells}
    assert before < after


def test_an_axis_of_tasks_has_a_folder_for_each(tmp_path: Path) -> None:
    """Two processes cannot share a run's folder; names between commas are one cell's."""
    found = sweep(tmp_path, "tasks: [langgame, addition_3digit]\noutput_path: out\n")
    assert [cell.run.output_path for cell in found.cells] == [Path("out/langgame"), Path("out/addition_3digit")]
    one = sweep(tmp_path, "tasks: langgame,addition_3digit\n")
    assert [cell.run.tasks for cell in one.cells] == [("langgame", "addition_3digit")]
    assert one.cells[0].run.output_path == Path("results")


def test_methods_are_an_axis_of_flags_that_go_together(tmp_path: Path) -> None:
    """Three methods: an entry's own lists are axes within it."""
    text = """\
tasks: langgame
methods:
  - {plugin: stochastok, method_args: {scheme: [none, stochastok], steps: 4}}
  - {plugin: contextual_embeddings, method_args: {pooling: prompteol}}
  - baseline
seed: 0..1
"""
    found = sweep(tmp_path, text)
    assert [cell.title for cell in found.cells] == [
        "method=baseline",
        *(f"plugin=stochastok steps=4 scheme={s} seed={n}" for s in ("none", "stochastok") for n in (0, 1)),
        *(f"plugin=contextual_embeddings pooling=prompteol seed={n}" for n in (0, 1)),
    ]
    assert found.merged == 2  # the baseline of both seeds is the one that is there anyway


def test_include_and_exclude_take_names_as_people_call_them(tmp_path: Path) -> None:
    """An option of the method by its own name, or dotted; a cell of its own has what all cells share."""
    text = PLAIN + "exclude:\n  - {scheme: none, seed: [0, 1]}\ninclude:\n  - {scheme: stochastok, steps: 8}\n"
    text += "  - {scheme: bpe_dropout, method_args.dropout: 0.2, seed: 5}\nbaseline: none\n"
    assert titles(tmp_path, text)[::4] == [
        "scheme=stochastok quantization=none seed=0 steps=8",
        "scheme=bpe_dropout seed=5 dropout=0.2",
    ]


def test_checkpoints_are_an_axis_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Every step that lies there; a file beside them is none."""
    for step in (20, 100, 3):
        folder = tmp_path / "ckpt" / f"step_{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"x")
    (tmp_path / "ckpt" / "step_7").write_text("", encoding="utf-8")
    found = sweep(tmp_path, "tasks: langgame\ncheckpoints: ckpt/step_{step}\nstep: '*'\n")
    assert [cell.title for cell in found.cells] == ["step=3", "step=20", "step=100"]
    assert [cell.run.model_args for cell in found.cells][-1] == {"pretrained": "ckpt/step_100"}
    listed = sweep(tmp_path, "tasks: langgame\ncheckpoints: ./ckpt/step_{step}\nstep: [20, 3]\n")
    assert [cell.title for cell in listed.cells] == ["step=20", "step=3"]


def test_a_checkpoint_that_is_a_link_in_a_circle_is_told(tmp_path: Path) -> None:
    """Missing, and never found."""
    (tmp_path / "step_1").symlink_to(tmp_path / "step_2")
    (tmp_path / "step_2").symlink_to(tmp_path / "step_1")
    with pytest.raises(
        HarnessError, match=r"sweep.yaml:2: no checkpoint lies at 'step_1', but a link that leads in a circle"
    ):
        sweep(tmp_path, "tasks: langgame\ncheckpoints: step_{step}\nstep: [1, 2]\n")


def test_the_baseline_has_a_cell_for_each_seed_where_shots_are_drawn(tmp_path: Path) -> None:
    """Other examples are other prompts, whose untouched model stands beside no other."""
    text = "plugin: stochastok\ntasks: langgame\nseed: 0..1\n"
    assert titles(tmp_path, text)[:2] == ["method=baseline", "seed=0"]
    assert titles(tmp_path, text + "num_fewshot: 2\n")[:2] == ["method=baseline seed=0", "method=baseline seed=1"]


def test_shards_and_processes_are_of_every_cell(tmp_path: Path) -> None:
    """Each cell is divided; engines keep what is said of them."""
    found = sweep(tmp_path, "tasks: langgame\nshards: 3\nslurm: {partition: gpu, mem_gb: 8}\n")
    assert [str(cell.run.shard) for cell in found.cells] == ["1/3", "2/3", "3/3"]
    assert found.engines == {"slurm": {"partition": "gpu", "mem_gb": 8}}
    assert sweep(tmp_path, "tasks: langgame\naccelerate: {num_processes: 2}\n").cells[0].processes == 2


def test_an_entry_of_exclude_that_fits_nothing_is_noted(tmp_path: Path) -> None:
    """A typo there would cost hours in silence."""
    found = sweep(tmp_path, "tasks: langgame\nseed: [0, 1]\nplugin: stochastok\nexclude:\n  - {seed: 7}\n")
    assert [note.rpartition("/")[2] for note in found.notes] == [
        "sweep.yaml:5: this entry of exclude fits no cell, so it leaves nothing out"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it holds nothing"),
        ("- a\n", r":1: a sweep is `name: value`"),
        ("tasks: langgame\nseed: 1\nseed: 2\n", r":3: 'seed' stands here again, after line 2"),
        ("tasks: &a [*a]\n", r":1: it holds itself"),
        ("tasks: langgame\nlimits: 3\n", r":2: 'limits' is neither a flag .* did you mean 'limit'"),
        ("tasks: langgame\nplugin: stochastok\nscheme: [none]\n", r":3: 'scheme' is an option of the method"),
        ("tasks: langgame\nplugin: stochastik\n", r":2: no plugin is called 'stochastik'; did you mean 'stochastok'"),
        (
            "tasks: langgame\nplugin: stochastok\nmethod_args:\n  steps: 1\n  stepz: 3\n",
            r":5: method 'stochastok' has no option",
        ),
        ("tasks: langgame\nplugin: stochastok\nmethod_args:\n  steps: [3, many]\n", r":4: option 'steps' .* is 'many'"),
        ("tasks: langgame\nplugin: stochastok\nmethod_args: {train_file: none.txt}\n", r":3: cannot read 'none.txt'"),
        ("limit: 1\ntasks:\n  - langgame\n  - langgam\n", r":4: no task is called 'langgam'"),
        ("tasks: langgame\nseed: []\n", r":2: 'seed' has an empty list"),
        ("tasks: langgame\nseed: 2..0\n", r":2: the range 2..0 has nothing in it; write it upwards, as 0..2"),
        ("tasks: langgame\nlimit: [1, -1]\n", r":2: --limit -1 is neither"),
        ("tasks: langgame\nwith_baseline: true\n", r":2: .* say `baseline: once`"),
        ("tasks: langgame\nmodel_args:\n  dtype: [float32, float33]\n", r":3: dtype 'float33' is unknown"),
        ("tasks: langgame\nmodel_args: {pretrained: ./no}\n", r":2: no model folder at './no'"),
        ("tasks: langgame\ncheckpoints: c_{step}\nstep: [1]\n", r":2: no checkpoint lies at 'c_1'"),
        ("tasks: langgame\ncheckpoints: c_{step}\nstep: '*'\n", r":3: no checkpoint lies at 'c_\{step\}'"),
        ("tasks: langgame\nslurm:\n  partion: gpu\n", r":3: 'slurm' has no 'partion'; did you mean 'partition'"),
        ("tasks: langgame\nseed: [0]\nexclude: [{seed: 0}]\n", r":3: exclude leaves no cell"),
        ("limit: 3\n", "no task is named"),
        ("tasks: langgame\ndevice: [cpu, cuda]\n", r":2: .* would write the same records, as device decides no score"),
        ("tasks: langgame\nseed: 0..99999\nlimit: 1..100\n", r":1: these are 10,000,000 cells"),
        ("tasks: langgame\nfolder: nowhere\n", r":2: no folder is at 'nowhere'"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    """Before anything starts: one sentence, with file and line."""
    with pytest.raises(HarnessError, match=f"sweep.yaml{sentence}" if sentence.startswith(":") else sentence):
        sweep(tmp_path, text)


def test_no_file_no_text_and_a_folder_are_told(tmp_path: Path) -> None:
    """What is no file of a sweep at all."""
    with pytest.raises(HarnessError, match="cannot be read: No such file"):
        read(tmp_path / "sweep.yaml")
    with pytest.raises(HarnessError, match="is a folder; give the file of a sweep in it"):
        read(tmp_path)
    (tmp_path / "sweep.yaml").write_bytes(b"tasks: langgame\nlimit: \xff\n")
    with pytest.raises(HarnessError, match=r"sweep.yaml:2: this is no UTF-8 text"):
        read(tmp_path / "sweep.yaml")


def test_aliases_that_grow_without_bounds_are_refused(tmp_path: Path) -> None:
    """Ten lines that stand for a thousand million values."""
    lines = ["tasks: langgame", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(HarnessError, match="aliases grow to more than 100,000 values"):
        sweep(tmp_path, "\n".join(lines))


def test_what_decides_is_told_apart_and_what_does_not_is_not(tmp_path: Path) -> None:
    """Options, the content of files they name, and the model's files; neither place nor number of devices."""
    text = tmp_path / "train.txt"
    text.write_text("some words to train on\n", encoding="utf-8")
    plain = "plugin: stochastok\nmethod_args: {train_file: train.txt, steps: 1}\ntasks: langgame\nbaseline: none\n"

    def known(more: str = "", content: str = plain) -> str:
        found = sweep(tmp_path, content + more)
        return identity(found.cells[0], found.folder)

    first = known()
    assert known() == first == known("batch_size: 4\n") == known("device: cpu\n")
    assert known("limit: 3\n") != first != known(content=plain.replace("steps: 1", "steps: 2"))
    text.write_text("other words to train on\n", encoding="utf-8")
    assert known() != first


PROGRAM = """\
import json, sys
from pathlib import Path
from harness.sweeps.identity import identity
from harness.sweeps.spec import read
found = read(Path(sys.argv[1]))
names = {identity(cell, found.folder) for cell in found.cells}
print(json.dumps([len(found.cells), len(names), sorted({"torch", "transformers", "lm_eval", "datasets"} & set(sys.modules))]))
"""


def test_hundreds_of_cells_are_read_and_identified_without_a_large_library(tmp_path: Path) -> None:
    """From the file to what each cell is: no torch, no lm-eval."""
    path = written(tmp_path, "plugin: stochastok\nmethod_args: {steps: 1..25}\ntasks: langgame\nseed: 0..9\n")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [251, 251, []]
