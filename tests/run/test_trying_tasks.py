"""``harness tasks --check NAME``: one document, its requests and what the right answer scores; mistakes in one sentence."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import Command

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture
def check(cli: Command, own_tasks: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that gives what ``--check --json`` says of a task in the folder of a test."""

    def ask(name: str, *flags: object) -> list[dict[str, Any]]:
        outcome = cli("tasks", "--check", name, "--json", *flags)
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        assert isinstance(found, list)
        return found

    return ask


def test_a_task_of_a_folder_shows_its_first_document_as_it_is_asked(
    check: Callable[..., list[dict[str, Any]]], own_tasks: Path
) -> None:
    [task] = check("colours", "--include_path", own_tasks)
    assert task["document"]["question"] == "The colour of grass is"
    assert [request["arguments"] for request in task["requests"]] == [
        ["The colour of grass is", f" {colour}"] for colour in ("green", "white", "black", "red")
    ]
    assert (task["target"], task["scored"]) == (0, {"acc": 1.0})
    assert (task["documents"], task["metrics"], task["higher_is_better"]) == (4, {"acc": "mean"}, {"acc": True})
    [written] = check("write_colours", "--include_path", own_tasks)
    assert written["requests"][0]["arguments"][1]["max_gen_toks"] == 4
    assert written["scored"] == {"exact_match": 1.0}


def test_every_task_of_a_group_is_tried_and_a_file_by_its_path(
    check: Callable[..., list[dict[str, Any]]], own_tasks: Path
) -> None:
    names = [task["name"] for task in check("langgame")]
    assert len(names) == 6 and "langgame_longest" in names
    [task] = check(str(own_tasks / "colours.yaml"))
    assert task["file"] == str((own_tasks / "colours.yaml").resolve())


def test_it_is_printed_for_people(cli: Command, own_tasks: Path) -> None:
    printed = cli("tasks", "--check", "colours", "--include_path", own_tasks).out
    for said in ("data.make: 4 documents in split test", "acc: mean, higher is better", '" green"', "gets acc 1.0"):
        assert said in printed


TASK = """
    task: mine
    custom_dataset: !function data.make
    test_split: test
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: "{{options[answer]}}"
    metric_list: [{metric: exact_match}]
"""
FILES = "dataset_path: json\ndataset_kwargs: {data_files: {test: no.jsonl}}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task: mine": "task: mine\n    \tx: [", }, "does not parse (line 3"),
        ({"metric: exact_match": "metric: exact_mach"}, "exact_mach"),
        ({"{{question}}": "{{qestion}}"}, "qestion"),
        ({"test_split: test": "test_split: nowhere"}, "nowhere"),
        ({"data.make": "data.missing"}, "missing"),
        ({"data.make": "data.without_a_file"}, "No such file"),
        ({"[{metric: exact_match}]": "[{metric: !function data.metric, aggregation: mean}]"}, "no_such_package"),
        ({"custom_dataset: !function data.make": FILES}, "no.jsonl"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_before_anything_is_evaluated(
    changes: dict[str, str], said: str, cli: Command, own_tasks: Path
) -> None:
    text = textwrap.dedent(TASK)
    for old, new in changes.items():
        text = text.replace(old, textwrap.dedent(new))
    data = (own_tasks / "data.py").read_text(encoding="utf-8")
    data += "\n\ndef without_a_file(**_):\n    return open('nothing.jsonl')\n"
    data += "\n\ndef metric(references, predictions, **_):\n    import no_such_package\n"
    Path("mine").mkdir()
    Path("mine/mine.yaml").write_text(text, encoding="utf-8")
    Path("mine/data.py").write_text(data, encoding="utf-8")
    outcome = cli("tasks", "--check", "mine", "--include_path", "mine")
    assert outcome.code in {1, 2} and outcome.out == ""
    assert said in outcome.sentence and "Traceback" not in outcome.err


def test_what_is_no_task_is_told(cli: Command) -> None:
    assert "did you mean 'langgame'" in cli("tasks", "--check", "langgme").sentence
    assert "--metadata is for the data of a task" in cli("tasks", "--metadata", "a=1").sentence


def test_a_plugin_whose_methods_cannot_be_had_still_lists_its_tasks(
    make_plugin: Callable[..., Path], cli: Command, own_tasks: Path
) -> None:
    """`harness tasks` asks for folders alone: a method may need packages that are not there, or take long."""
    source = f"""
        from pathlib import Path
        from harness import hookimpl

        @hookimpl
        def harness_methods():
            import no_such_package

        @hookimpl
        def harness_task_folders():
            return [Path({str(own_tasks)!r})]
    """
    make_plugin("slow", source, distribution="third-party-slow", module="third_party_slow")
    outcome = cli("tasks", "--plugin", "slow")
    assert (outcome.code, outcome.err) == (0, "") and "colours" in outcome.out
    assert "no_such_package" in cli("plugins", "slow").sentence
