"""What lies beside a task file stops no task; what is asked for and broken, or there twice, is told by file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.tasks import files
from harness.tasks.files import TaskFolder, copied_from, index
from harness.tasks.finding import load

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: d.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
MERGED = "task: bomb\na0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
NESTED = "task: bomb\na0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
NEIGHBOURS: dict[str, bytes | None] = {
    "list.yaml": b"- this file\n- is no task\n",
    "scalar.yaml": b"just text",
    "two.yaml": b"a: 1\n---\nb: 2\n",
    "reference.yaml": b"job: !reference [a, b]\n",
    "broken.yaml": b"a: [\n",
    "template.yaml": b"{{- if .Values.x }}\nkind: x\n{{- end }}\n",
    "complex.yaml": b"? {a: b}\n: c\n",
    "odd_value.yaml": b"a: 2020-13-45\nb: !!int x\n",
    "empty.yaml": b"",
    "binary.yaml": b"\x00\x01\xff",
    "latin.yaml": b"name: caf\xe9\n",
    "huge.yaml": b"x: y\n" * 400_000,
    "merged.yaml": MERGED.encode(),
    "nested.yaml": NESTED.encode(),
    "deep.yaml": b"a: " + b"[" * 20_000,
    "itself.yaml": b"a: &a [*a]\n",
    "includes.yaml": b"include: gone.yaml\ntask: including\n",
    "circle.yaml": b"include: circle.yaml\ntask: circle\n",
    "twice.yaml": b"task: twice\n",
    "twice_b.yaml": b"task: twice\ntest_split: other\n",
    "group.yaml": b"group: broken_group\ntask:\n  - task: neighbour\n - x\n",
    "._t.yaml": b"\x00\x05\x16\x07",
    "t.yaml~": b"task: neighbour\n",
    ".t.yaml.swp": b"task: neighbour\n",
    ".ipynb_checkpoints/t-checkpoint.yaml": b"task: neighbour\nx: 1\n",
    "folder.yaml/x.txt": b"",
    "t copy.yaml": b"task: neighbour\nx: 1\n",
    "t (copy).yaml": b"task: neighbour\nx: 2\n",
    "z_same.yaml": TASK.format(name="neighbour").encode(),
}


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def task(fresh: None) -> None:
    """A task ``neighbour`` in the working folder."""
    write("t.yaml", TASK.format(name="neighbour"))
    write("d.jsonl", '{"q": "The shop", "a": "x"}\n')


@pytest.mark.usefixtures("task")
def test_files_that_are_no_tasks_are_told_once_and_the_task_runs(evaluate: Command) -> None:
    """Case other_yaml_in_the_folder: the task runs; a warning names the file that is none."""
    write("list.yaml", "- this file\n- is no task\n")
    outcome = evaluate("--include_path", ".", tasks="neighbour")
    assert outcome.code == 0, outcome.err
    [told] = [line for line in outcome.err.splitlines() if "list.yaml" in line]
    assert told.startswith("left out, since nothing that is asked for needs it: task file ")
    assert told.endswith("list.yaml holds a list, where a mapping is due")


@pytest.mark.usefixtures("task")
def test_nothing_beside_a_task_stops_it(capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in NEIGHBOURS.items():
        write(name, content or b"")
    os.symlink("nowhere", "dangling.yaml")
    os.symlink("someone@host.1234", ".#t.yaml")  # Emacs locks a file so
    os.mkfifo("pipe.yaml")
    folder = TaskFolder("--include_path", Path.cwd())
    loaded = load(["neighbour"], [folder, folder])
    assert loaded.tasks["neighbour"].config.generation_kwargs["max_gen_toks"] == 8
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert len(told) == 1
    assert told[0].count("task file") == files.TOLD_BY_NAME
    load(["neighbour"], [folder])
    assert "left out" not in capsys.readouterr().err

    problems = "\n".join(index([folder]).problems())
    for name in {*NEIGHBOURS, "dangling.yaml", ".#t.yaml", "pipe.yaml"}:
        unread = name in {"empty.yaml", "t.yaml~", ".t.yaml.swp", ".ipynb_checkpoints/t-checkpoint.yaml"}
        assert (name.partition("/")[0] in problems) is not unread, name


@pytest.mark.parametrize(
    ("asked", "content", "sentence"),
    [
        ("wanted", "task: wanted\nmetric_list: [\n", "other.yaml does not parse (line 3, column 1)"),
        ("want*", "task: wanted\nmetric_list: [\n", "other.yaml does not parse (line 3, column 1)"),
        (
            "some",
            "task: neighbour\ntag: [some, more]\nx: !reference y\n",
            "other.yaml does not parse (line 3, column 4)",
        ),
        ("neighbour", "task: neighbour\n---\nx: 1\n", "other.yaml does not parse (line 2, column 1)"),
        ("other", "x: [\n", "other.yaml does not parse (line 2, column 1)"),
        ("wanted", "- task: wanted\n", "other.yaml holds a list, where a mapping is due"),
        ("wanted", "task: wanted\ninclude: gone.yaml\n", "includes {here}/gone.yaml, which is not there"),
        ("wanted", "task: wanted\ninclude: other.yaml\n", "includes {here}/other.yaml, which includes it"),
        ("wanted", "task: wanted\ninclude: [5]\n", "includes 5, which is no file name"),
        (
            "neighbour",
            "task: neighbour\nx: 1\n",
            "task name 'neighbour' is used twice: by --include_path in {here}/other.yaml",
        ),
        ("all", "group: all\ntask: [neighbour, lost]\n", "bad.yaml does not parse (line 2, column 4)"),
        ("all", "group: all\ntask: [all]\n", "group 'all' holds itself"),
        ("all", "group: all\ntask: []\n", "group 'all' names no tasks; list them under 'task'"),
        ("all", "group: all\ntask: [5]\n", "group 'all' lists 5, which is neither a name nor a mapping with 'task'"),
        ("all", "group: all\ntask: [{group: within, task: [lost]}]\n", "bad.yaml does not parse (line 2, column 4)"),
        ("bomb", MERGED, "other.yaml has aliases that grow to more than 1,000,000 values"),
        ("bomb", NESTED, "other.yaml has aliases that grow to more than 1,000,000 values"),
    ],
)
@pytest.mark.usefixtures("task")
def test_a_broken_file_that_is_asked_for_is_an_error(asked: str, content: str, sentence: str) -> None:
    write("other.yaml", content)
    write("bad.yaml", "task: lost\nx: !reference y\n")
    with pytest.raises(HarnessError) as caught:
        load([asked], [TaskFolder("--include_path", Path.cwd())])
    assert sentence.format(here=Path.cwd()) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        *(
            (name, "t")
            for name in ("t copy", "t copy 2", "t (copy)", "t (another copy)", "t - Copy", "t - Copy (2)", "t (1)")
        ),
        *((name, "t") for name in (".#t", "._t", "t~", "t.bak", "t_backup", "t-checkpoint", "t.orig", "Copy of t")),
        *((name, None) for name in ("t", "t_v2", "photocopy", "threshold", "t_0", "copy", "old")),
    ],
)
def test_a_copy_is_known_by_its_name(name: str, original: str | None) -> None:
    assert copied_from(Path(f"{name}.yaml")) == original


@pytest.mark.usefixtures("task")
def test_braces_give_alternatives_also_with_globs(evaluate: Command) -> None:
    write("u.yaml", TASK.format(name="newcomer"))
    folder = TaskFolder("--include_path", Path.cwd())
    assert set(load(["ne{ighbou,wcome}?"], [folder]).tasks) == {"neighbour", "newcomer"}
    assert set(load(["{t,u}.yaml"], []).tasks) == {"neighbour", "newcomer"}
    outcome = evaluate("--include_path", ".", "--num_fewshot", "9", tasks="{neighbour,newcomer},neighbour")
    assert "9 shots are asked for" in outcome.sentence  # both names are found, and checked further


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ("twice", "(num_fewshot: 0 and 5), in group 'twice' and in group 'twice'"),
        ("zero,five", "(num_fewshot: 0 and 5), in group 'zero' and in group 'five'"),
        ("above", "(num_fewshot: 0 and 5), in group 'zero' and in group 'five'"),
        ("neighbour,five", "(num_fewshot: 0 and 5), by itself and in group 'five'"),
        ("short,neighbour", "(doc_to_text: It: {{q}} and {{q}}), in group 'short' and by itself"),
    ],
)
@pytest.mark.usefixtures("task")
def test_one_task_twice_with_other_settings_is_refused(group: str, sentence: str) -> None:
    write("twice.yaml", "group: twice\ntask: [{task: neighbour, num_fewshot: 0}, {task: neighbour, num_fewshot: 5}]\n")
    write("zero.yaml", "group: zero\ntask: [{task: neighbour, num_fewshot: 0}]\n")
    write("five.yaml", "group: five\ntask: [neighbour]\nnum_fewshot: 5\n")
    write("short.yaml", "group: short\ntask: [{task: neighbour, doc_to_text: 'It: {{q}}'}]\n")
    write("above.yaml", "group: above\ntask: [zero, five]\n")
    with pytest.raises(HarnessError) as caught:
        load(group.split(","), [TaskFolder("--include_path", Path.cwd())])
    assert f"task 'neighbour' is asked for twice with other settings {sentence}; " in str(caught.value)


@pytest.mark.usefixtures("task")
def test_one_task_twice_with_the_same_settings_is_asked_once() -> None:
    write("one.yaml", "group: one\ntask: [neighbour, neighbour]\n")
    write("two.yaml", "group: two\ntask: [{task: neighbour, num_fewshot: 5}]\n")
    folder = TaskFolder("--include_path", Path.cwd())
    loaded = load(["one", "neighbour", "t.yaml"], [folder])
    assert (list(loaded.tasks), list(loaded.groups)) == (["neighbour"], ["one"])
    # With --num_fewshot both are asked alike.
    assert list(load(["one", "two"], [folder], num_fewshot=5).groups) == ["one", "two"]


@pytest.mark.usefixtures("task")
def test_one_name_of_two_files_that_are_asked_for_is_an_error() -> None:
    write("sub/other.yaml", TASK.format(name="neighbour"))
    with pytest.raises(
        HarnessError, match=r"'neighbour' is used by two tasks that are asked for: .*t\.yaml and .*other\.yaml"
    ):
        load(["t.yaml", "sub/other.yaml"], [])


def test_a_group_given_by_its_file_says_where_its_members_lie(task: None) -> None:
    write("g.yaml", "group: g\ntask: [neighbour]\n")
    with pytest.raises(HarnessError) as caught:
        load(["g.yaml"], [])
    assert str(caught.value) == "group 'g' names the task 'neighbour', which lies beside it: add --include_path ."
    assert list(load(["g.yaml"], [TaskFolder("--include_path", Path.cwd())]).groups) == ["g"]
