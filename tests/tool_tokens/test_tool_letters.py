"""The task ``letter_count``, and the example of the plugin's README that answers it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.tasks import finding
from harness_tool_tokens import harness_task_folders
from harness_tool_tokens.rows.examples import example_rows
from harness_tool_tokens.tools.executing import Executor
from harness_tool_tokens.tools.toolbox import Toolbox

README = Path(__file__).parents[2] / "plugins" / "harness_tool_tokens" / "README.md"


def docs() -> list[dict[str, Any]]:
    """Return the documents as lm-eval has them."""
    folders = [finding.TaskFolder("tool_tokens", folder) for folder in harness_task_folders()]
    return list(finding.load(["letter_count"], folders).tasks["letter_count"].eval_docs)


def test_questions_ask_for_the_most_frequent_letter_the_last_and_one_that_is_missing() -> None:
    """Demand: every answer is the count, none of them always the same."""
    found = docs()
    assert len(found) >= 100 and found == docs()
    for doc in found:
        match = re.fullmatch(r"Q: How many times does the letter (.) occur in (\w+)\?\nA:", doc["prompt"])
        assert match is not None
        assert doc["answer"] == str(match[2].count(match[1]))
    assert {"0", "1", "2", "3", "4"} <= {doc["answer"] for doc in found}


def test_an_answer_is_right_when_its_last_number_is_the_count() -> None:
    """Demand: text around the number does not matter, another number does."""
    task = finding.load(
        ["letter_count"], [finding.TaskFolder("tool_tokens", folder) for folder in harness_task_folders()]
    ).tasks["letter_count"]
    doc = next(doc for doc in task.eval_docs if doc["answer"] == "3")
    for answer, value in (
        (" It occurs 3 times.", 1.0),
        ("3", 1.0),
        (" 33 times", 0.0),
        (" three", 0.0),
        ("", 0.0),
        (" 3.0.", 1.0),
    ):
        assert task.process_results(doc, [answer]) == {"exact_match": value}


def test_the_tool_of_the_readme_loads_runs_and_has_examples_to_train_on(tmp_path: Path) -> None:
    """Demand: the ten lines work as they stand."""
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    file = tmp_path / "letters.py"
    file.write_text(code, encoding="utf-8")
    toolbox = Toolbox.load([str(file)])
    with Executor(toolbox) as executor:
        for doc in docs():
            letter, word = re.findall(r"letter (.) occur in (\w+)", doc["prompt"])[0]
            assert executor.call("count_letter", f"{letter}, {word}").text == doc["answer"]
    rows = example_rows(toolbox)
    assert [row.text[row.calls[0].start : row.calls[0].end] for row in rows] == ["3", "2"]
    assert all("<count_letter>" not in row.text for row in rows)
