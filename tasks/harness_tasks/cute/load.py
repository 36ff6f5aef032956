"""What the CUTE task files call: the user's copy of the data, and the metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from harness.errors import HarnessError
from harness_tasks.cute.prompts import TASKS
from harness_tasks.scores import above_chance

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER_VARIABLE = "HARNESS_CUTE_FOLDER"
HOW_TO_NAME_IT = f"""--metadata '{{"cute_folder": "DIR"}}' or the environment variable {FOLDER_VARIABLE}"""


class Doc(TypedDict):
    """One question of the task ``cute_task``; the answer is ``label``, written after ``prompt`` and ``Answer: "``."""

    cute_task: str
    prompt: str
    label: str


def make(*, cute_task: str, cute_folder: str | None = None, **_: Any) -> dict[str, Dataset]:
    """Return the split ``test`` of one task, a row of its file a question.

    Args:
        cute_task: a key of ``prompts.TASKS``, from the task file.
        cute_folder: from the task's metadata; None reads the environment variable instead.
        _: the rest of the metadata, which lm-eval hands over too.

    Raises:
        HarnessError: no folder is named, or the file in it is missing or of another form.
    """
    from datasets import Dataset

    docs = read(_folder(cute_folder, cute_task) / f"{cute_task}.tsv", cute_task)
    return {"test": Dataset.from_list(docs)}


def score(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return ``exact_match`` (1 or 0) and, for the tasks with two possible answers, ``acc_above_chance``.

    What counts is the text up to the next quotation mark, without space around it; upper and lower case are alike in
    the tasks about words of a sentence, as in the benchmark's own scoring.
    """
    task = TASKS[doc["cute_task"]]
    answer, label = results[0].partition('"')[0].strip(), doc["label"].strip()
    is_hit = answer.lower() == label.lower() if task.ignores_case else answer == label
    metrics = {"exact_match": float(is_hit)}
    if task.is_two_way:
        metrics["acc_above_chance"] = above_chance(float(is_hit), options=2)
    return metrics


def read(path: Path, cute_task: str) -> list[Doc]:
    """Read one file of the benchmark: UTF-8, tabs between cells, no quoting, the column names in the first line.

    Raises:
        HarnessError: the file is missing, is not such a file, or has no row.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError(
            f"task 'cute_{cute_task}' needs {path}, which cannot be read ({error.strerror}); "
            f"name the folder that holds it with {HOW_TO_NAME_IT}"
        ) from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path} is not UTF-8 text; get the benchmark's own file again") from error
    docs = list(_docs(text, path, cute_task))
    if not docs:
        raise HarnessError(f"{path} has no row below its column names; get the benchmark's own file again")
    return docs


def _docs(text: str, path: Path, cute_task: str) -> Iterator[Doc]:
    task = TASKS[cute_task]
    columns = [*(f"input{number}" for number in range(1, task.inputs + 1)), "label"]
    # Not splitlines(): it also splits at characters such as U+0085, which a sentence may hold.
    header, *lines = text.replace("\r\n", "\n").split("\n")
    if header.split("\t") != columns:
        raise HarnessError(
            f"{path} has the columns {', '.join(header.split(chr(9)))}, but task 'cute_{cute_task}' needs "
            f"{', '.join(columns)}, with tabs between; get the benchmark's own file"
        )
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        *inputs, label = line.split("\t")
        if len(inputs) != task.inputs:
            raise HarnessError(f"line {number} of {path} has {len(inputs) + 1} cells, not {len(columns)}; correct it")
        yield {"cute_task": cute_task, "prompt": task.prompt(inputs), "label": label}


def _folder(named: str | None, cute_task: str) -> Path:
    folder = named or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise HarnessError(
            f"task 'cute_{cute_task}' reads the data of the CUTE benchmark, which are not part of this package; "
            f"get the repository github.com/Leukas/CUTE and name its folder data with {HOW_TO_NAME_IT}"
        )
    return Path(folder).expanduser()
