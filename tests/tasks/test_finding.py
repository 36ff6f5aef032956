"""Task files: found in the folders of plugins, checked before anything heavy happens, loaded by lm-eval."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.tasks.files import TaskFolder, index, read_yaml
from harness.tasks.finding import load
from harness.tasks.fit import request_types

pytestmark = pytest.mark.usefixtures("fresh")

Command = Callable[..., Any]

MADE = """\
custom_dataset: !function data.make
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: answer
metadata:
  version: 1.0
"""


def write(folder: Path, **files: str) -> TaskFolder:
    """Write task files by name into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    return TaskFolder(folder.name, folder)


@pytest.fixture
def palette(tmp_path: Path, own_tasks: Path) -> TaskFolder:
    """A folder of its own with three tasks, two of them of one tag, and a group of two."""
    folder = write(
        tmp_path / "palette",
        warm="task: palette_warm\ntag: shades\n" + MADE,
        cold="task: palette_cold\ntag: [shades]\n" + MADE,
        other="task: neutral\n" + MADE,
        group="group: palette\ntask: [palette_warm, palette_cold]\n",
        _shared="test_split: test\n",
    )
    (folder.path / "data.py").write_bytes((own_tasks / "data.py").read_bytes())
    return folder


def test_tasks_groups_and_tags_are_indexed_with_their_owner(palette: TaskFolder) -> None:
    entries = index([palette])
    assert {name: entry.kind for name, entry in entries.items()} == {
        "palette_warm": "task", "palette_cold": "task", "neutral": "task", "palette": "group", "shades": "tag",
    }  # fmt: skip
    assert {entry.owner for entry in entries.values()} == {"palette"}
    assert entries["palette_warm"].path == palette.path / "warm.yaml"


@pytest.mark.parametrize(
    ("asked", "loaded"),
    [
        (["neutral"], {"neutral"}),
        (["neutral", "neutral"], {"neutral"}),
        (["palette"], {"palette_warm", "palette_cold"}),
        (["shades"], {"palette_warm", "palette_cold"}),
        (["neutral", "palette"], {"neutral", "palette_warm", "palette_cold"}),
        (["*_warm"], {"palette_warm"}),
        (["palette_*"], {"palette_warm", "palette_cold"}),
        (["palette*"], {"palette_warm", "palette_cold"}),
        (["*"], {"neutral", "palette_warm", "palette_cold"}),
        (["palette_w?rm", "neutr[ab]l"], {"palette_warm", "neutral"}),
        (["palette_warm", "*_warm"], {"palette_warm"}),
    ],
)
def test_names_groups_tags_and_globs_are_loaded_once_each(
    asked: list[str], loaded: set[str], palette: TaskFolder
) -> None:
    assert set(load(asked, [palette]).tasks) == loaded


def test_a_task_asked_for_by_name_and_by_group_is_loaded_once(palette: TaskFolder) -> None:
    assert set(load(["palette", "palette_warm"], [palette]).tasks) == set(load(["palette"], [palette]).tasks)


def test_a_task_file_is_loaded_by_its_path(palette: TaskFolder) -> None:
    tasks = load([str(palette.path / "other.yaml")], [])
    assert set(tasks.tasks) == {"neutral"}
    assert request_types(tasks.tasks["neutral"]) == {"loglikelihood"}
    with pytest.raises(HarnessError, match=r"^no task file at 'nowhere\.yaml'$"):
        load(["nowhere.yaml"], [palette])


def test_metadata_reaches_the_function_that_makes_the_data(palette: TaskFolder) -> None:
    [task] = load(["neutral"], [palette], metadata={"length": 3}).tasks.values()
    assert task.doc_to_text(task.test_docs()[0]).count("so it is said. ") == 2


def test_no_task_is_told(palette: TaskFolder, evaluate: Command, cli: Command) -> None:
    with pytest.raises(
        HarnessError, match=r"^no task was named; give some with --tasks \(`harness tasks` lists them\)$"
    ):
        load([], [palette])
    assert cli("eval").sentence == "harness: no task was named; give some with --tasks (`harness tasks` lists them)"
    assert (
        evaluate(tasks=",").sentence
        == "harness: no task was named; give some with --tasks (`harness tasks` lists them)"
    )


def test_one_name_in_two_files_names_both(tmp_path: Path, evaluate: Command) -> None:
    first = write(tmp_path / "first", a="task: colours\n" + MADE)
    second = write(tmp_path / "second", b="group: colours\ntask: [x]\n")
    with pytest.raises(HarnessError) as caught:
        load(["colours"], [first, second])
    assert str(caught.value) == (
        f"task name 'colours' is used twice: by first in {first.path / 'a.yaml'} and by second in {second.path / 'b.yaml'}"
    )
    outcome = evaluate("--include_path", first.path)
    assert outcome.code == 2
    assert "task name 'colours' is used twice: by --include_path in " in outcome.sentence


def test_one_name_twice_in_one_folder_is_an_error_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", a="task: same\n", b="task: same\ntest_split: test\n")
    with pytest.raises(HarnessError, match=r"'same' is used twice: .*a\.yaml and .*b\.yaml"):
        load(["same"], [folder])


def test_the_name_of_another_plugins_task_is_an_error_that_names_both(
    make_plugin: Any, cli: Command, tmp_path: Path
) -> None:
    folder = write(tmp_path / "clash", fertility="task: fertility\n" + MADE)
    source = f"""
        from pathlib import Path
        from harness import hookimpl

        @hookimpl
        def harness_task_folders():
            return [Path({str(folder.path)!r})]
    """
    make_plugin("clash", source)
    outcome = cli("eval", "--plugin", "clash", "--tasks", "fertility")
    assert outcome.code == 2
    assert "task name 'fertility' is used twice: by clash in " in outcome.sentence
    assert " and by tasks in " in outcome.sentence


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("task: a\nmetric_list: [\n", "does not parse (line 3, column 1)"),
        ("task: a\n\tb: c\n", "does not parse (line 2, column 1)"),
        ("task: 'a\n", "does not parse (line 2, column 1)"),
        ("task: a\ndoc_to_text: {{question}}: x\n", "does not parse (line 2"),
        ("task: a\nx: &b 1\ny: *c\n", "does not parse (line 3, column 4)"),
        ("task: a\nx: !!python/object/apply:os.system ['touch canary']\n", "does not parse (line 2, column 4)"),
        ("task: a\nx: !unknown y\n", "does not parse (line 2, column 4)"),
        ("- task: a\n", "holds a list, where a mapping is due"),
        ("just text", "holds a str, where a mapping is due"),
        ("task: \udcff\n", "does not parse"),
        ("task: a\0b\n", "does not parse"),
    ],
)
def test_a_file_that_does_not_parse_is_told_by_file_and_line(
    content: str, where: str, tmp_path: Path, evaluate: Command, make_plugin: Any, cli: Command
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    file = folder / "task.yaml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))

    outcome = evaluate("--tasks", file)
    assert outcome.code == 2
    assert outcome.sentence.startswith(f"harness: task file {file} {where}")
    assert outcome.err.count("\n") == 1
    [broken] = index([TaskFolder("broken", folder)]).broken
    assert broken.problem.startswith(f"task file {file} {where}")

    source = f"""
        from pathlib import Path
        from harness import hookimpl

        @hookimpl
        def harness_task_folders():
            return [Path({str(folder)!r})]
    """
    make_plugin("broken", source)
    assert str(file) in cli("tasks", "--plugin", "broken").sentence
    listed = cli("tasks")
    assert (listed.code, "langgame" in listed.out) == (1, True)
    assert str(file) in listed.err
    told = cli("plugins", "broken")
    assert (told.code, str(file) in told.err) == (0, True)
    assert not (Path.cwd() / "canary").exists()
    assert not list(Path("out").glob("*"))


def test_an_empty_file_and_one_that_others_include_are_no_tasks(tmp_path: Path) -> None:
    folder = write(tmp_path / "quiet", empty="", comment="# nothing\n", _shared="test_split: test\n")
    assert index([folder]) == {}


@pytest.mark.parametrize(
    "content", ["task: 5\n", "task: ''\n", "task: [1, 2]\n", "group: [a]\n", "task: a\ntag: 7\n", "1: 2\n"]
)
def test_a_name_of_an_odd_type_does_not_stop_the_listing(content: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "odd", odd=content, good="task: good\n" + MADE)
    assert "good" in index([folder])


def test_listing_tasks_runs_nothing_that_their_files_name(tmp_path: Path, make_plugin: Any, cli: Command) -> None:
    canary = tmp_path / "canary"
    folder = write(tmp_path / "armed", armed="task: armed\n" + MADE)
    (folder.path / "data.py").write_text(f"open({str(canary)!r}, 'w').close()\n", encoding="utf-8")
    source = f"""
        from pathlib import Path
        from harness import hookimpl

        @hookimpl
        def harness_task_folders():
            return [Path({str(folder.path)!r})]
    """
    make_plugin("armed", source)
    assert "armed" in cli("tasks").out
    assert "armed" in cli("plugins", "armed").out
    assert not canary.exists()
    assert read_yaml(folder.path / "armed.yaml")["custom_dataset"] == "data.make"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise OSError('no such disk')", "OSError: no such disk"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def make(**_):\n    return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def other(**_):\n    return {}", "has no function 'make'"),
        ("def make(**_):\n    return None", "its data are NoneType, where a mapping from names of splits"),
        ("def make(**_):\n    raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_task_whose_code_fails_is_told_with_the_cause(
    code: str, cause: str, tmp_path: Path, evaluate: Command
) -> None:
    folder = write(tmp_path / "failing", failing="task: failing\n" + MADE)
    (folder.path / "data.py").write_text(code, encoding="utf-8")
    outcome = evaluate("--include_path", folder.path, tasks="failing")
    assert outcome.code == 2
    assert outcome.sentence.startswith("harness: task 'failing' could not be loaded: ")
    assert cause in outcome.sentence
    assert "loading tiny" not in outcome.err


def test_a_mistake_that_a_task_explains_itself_is_told_in_its_words(tmp_path: Path, evaluate: Command) -> None:
    folder = write(tmp_path / "failing", failing="task: failing\n" + MADE)
    code = "from harness import HarnessError\n\ndef make(**_):\n    raise HarnessError('the data moved')\n"
    (folder.path / "data.py").write_text(code, encoding="utf-8")
    outcome = evaluate("--include_path", folder.path, tasks="failing")
    assert outcome.code == 2
    assert outcome.sentence.endswith("the data moved")


def test_an_include_path_that_is_no_folder_is_told(evaluate: Command) -> None:
    outcome = evaluate("--include_path", "nowhere")
    assert (outcome.code, outcome.sentence) == (2, "harness: --include_path 'nowhere' is no folder")


def reading_all(test: Any) -> Any:
    """Mark a test of which lm-eval reads all its files: all of them in one worker, where they are read once."""
    return pytest.mark.xdist_group("lm-eval files")(pytest.mark.usefixtures("files_read_once")(test))


@pytest.fixture(scope="module")
def files_read_once() -> Iterator[None]:
    """Let lm-eval read each of its 14,000 files at the first question only; all else is done at each."""
    from lm_eval.tasks import _index

    read = functools.cache(_index.load_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", lambda *arguments, **settings: dict(read(*arguments, **settings)))
        yield


@reading_all
def test_a_task_of_another_plugin_is_told_with_its_plugin(cli: Command, tiny_model: Path) -> None:
    outcome = cli("eval", "--model_args", f"pretrained={tiny_model}", "--tasks", "tokenization_robustness")
    assert outcome.code == 2
    assert outcome.sentence == (
        "harness: task 'tokenization_robustness' belongs to plugin 'stochastok'; add --plugin stochastok"
    )


@reading_all
def test_an_unknown_task_suggests_near_names_of_ours_and_of_lm_eval(evaluate: Command) -> None:
    outcome = evaluate(tasks="langame,arc_esy")
    assert outcome.code == 2
    assert "no task is called 'langame'; did you mean 'langgame'" in outcome.sentence
    assert "loading tiny" not in outcome.err


@reading_all
def test_no_task_of_lm_eval_is_called_unknown(evaluate: Command) -> None:
    # Each is named in another way: quoted keys, tags in brackets, in an included file without .yaml, and by include alone.
    names = [
        "AraDiCE_ArabicMMLU_high_stem_biology_egy",
        "acp_bench",
        "acp_bench_hard",
        "afrimgsm_cot_tasks",
        "flores_afr-eng",
    ]
    outcome = evaluate(tasks=",".join(names))
    assert outcome.code == 2  # their data are not here
    assert "no task is called" not in outcome.sentence
    assert " could not be loaded: " in outcome.sentence


def test_a_task_the_lm_cannot_answer_is_told_before_loading(cli: Command, own_tasks: Path, tiny_model: Path) -> None:
    flags = ["--include_path", own_tasks, "--tasks", "colours", "--model", "tokenizer"]
    outcome = cli("eval", "--model_args", f"pretrained={tiny_model}", *flags)
    assert outcome.code == 2
    assert outcome.sentence == (
        "harness: task 'colours' sends 'loglikelihood' requests, which TokenizerOnly cannot answer; load weights with --model hf"
    )


def test_all_tasks_are_listed_with_the_plugin_to_add(cli: Command) -> None:
    rows = [line.split() for line in cli("tasks").out.splitlines()]
    assert ["fertility", "task"] in rows
    assert ["langgame", "group"] in rows
    assert ["tokenization_robustness", "task", "--plugin", "stochastok"] in rows
    assert [line.split()[0] for line in cli("tasks", "--plugin", "stochastok").out.splitlines()] == [
        "tokenization_robustness"
    ]


def test_a_task_with_emoji_in_its_name_is_evaluated(
    tmp_path: Path, own_tasks: Path, evaluate: Command, records: Any
) -> None:
    folder = write(tmp_path / "emoji", task="task: tâche 🎉/../x\n" + MADE)
    (folder.path / "data.py").write_bytes((own_tasks / "data.py").read_bytes())
    outcome = evaluate("--include_path", folder.path, tasks="tâche 🎉/../x")
    assert outcome.code == 0, outcome.err
    assert "tâche 🎉/../x" in outcome.out
    written = records(Path("out"))
    assert {record["task"]["name"] for record in written} == {"tâche 🎉/../x"}
    sample_file = Path("out") / written[0]["run"] / written[0]["samples"]["path"]
    assert sample_file.is_file()
    assert sample_file.resolve().is_relative_to(Path("out").resolve())
