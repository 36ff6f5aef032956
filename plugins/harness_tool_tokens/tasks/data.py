"""Find the folder of published tool data, and read its files with errors that name file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from harness import HarnessError
from harness.json_lines import Keys, Row, check_keys, read_json, read_json_lines, read_text
from harness.names import printable, suggestion
from harness_tool_tokens.tools.data_folder import data_file

QUESTION_SLOT = "[QUESTION]"
KAMEL_SIZES = (30, 60, 100, 234)
_CALL_KEYS: Keys = {"tool": str, "args": str, "result": str}
# One published gold call is written out, with something before the tool: `-<log>(0.5)=0.301`.
_WRITTEN_CALL = re.compile(r"(?P<before>[^<]*)<(?P<tool>\w+)>\((?P<args>.*)\)=(?P<result>.*)", re.DOTALL)


def prompts(folder: str | None = None) -> dict[str, dict[str, str]]:
    """Return the texts of ``prompts.json`` in the data folder; see ``read_prompts``."""
    return read_prompts(data_file("prompts.json", folder))


def read_prompts(path: Path) -> dict[str, dict[str, str]]:
    """Return the prompt texts of a file: ``{data set: {"general" or a tool's name: text}}``.

    Raises:
        HarnessError: the file is missing or of another form.
    """
    content = read_json(path)
    is_right = isinstance(content, dict) and all(
        isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()) for texts in content.values()
    )
    if not is_right:
        raise HarnessError(f"{printable(path)} does not map data sets to prompt texts by name; get the file again")
    return dict(content)


def prompt(dataset: str, name: str = "general", folder: str | None = None) -> str:
    """Return one prompt text, which holds ``[QUESTION]`` once.

    Raises:
        HarnessError: the data set or the text is missing, or has no place for the question.
    """
    texts = prompts(folder)
    for key, known in ((dataset, texts), (name, texts.get(dataset, {}))):
        if key not in known:
            raise HarnessError(f"prompts.json has nothing under '{printable(key)}'; {suggestion(key, known)}")
    text = texts[dataset][name]
    if text.count(QUESTION_SLOT) != 1:
        raise HarnessError(f"the prompt {dataset}/{printable(name)} of prompts.json must hold {QUESTION_SLOT} once")
    return text


def filled(text: str, question: str) -> str:
    """Return a prompt text with the question in its place."""
    return text.replace(QUESTION_SLOT, question, 1)


def funcqa(hops: Literal["one_hop", "multi_hop"], folder: str | None = None) -> list[Row]:
    """Return the FuncQA test rows: ``id``, ``question``, ``answer`` and ``calls``.

    Every call has ``tool``, ``args``, ``result``, and ``before``: text that stands between the answer and the call, a
    minus in one row of the published data and empty else.

    Raises:
        HarnessError: the file is missing or a row is broken.
    """
    path = data_file(f"funcqa_{hops}_test.jsonl", folder)
    rows = read_json_lines(path, {"id": str, "question": str, "answer": (int, float, str), "calls": list})
    return [{**row, "calls": [_call(call, row["id"], path) for call in row["calls"]]} for row in rows]


def known_issues(folder: str | None = None) -> dict[str, str]:
    """Return the kind of each known defect of a FuncQA test row by the row's id, such as ``wrong_gold``.

    Raises:
        HarnessError: the file is missing or of another form.
    """
    path = data_file("funcqa_known_issues.json", folder)
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(issue, dict) for issue in content):
        raise HarnessError(f"{printable(path)} is no list of objects; get the file again")
    for issue in content:
        check_keys(issue, f"an entry of {printable(path)}", {"id": str, "kind": str})
    return {issue["id"]: issue["kind"] for issue in content}


def gsm8k_xl(folder: str | None = None) -> list[Row]:
    """Return the GSM8K-XL test rows as they are; ``enlarging.open_slots`` tells which have unfilled slots.

    Raises:
        HarnessError: the file is missing or a row is broken.
    """
    keys: Keys = {"id": str, "question": str, "answer": (int, float), "values": list, "enhanced_values": list}
    more: Keys = {"template_question": str, "process": list}
    return read_json_lines(data_file("gsm8k_xl_test.jsonl", folder), {**keys, **more})


def kamel_questions(relations: int, folder: str | None = None) -> list[Row]:
    """Return the KAMEL test questions drawn for the first ``relations`` tools: id, question, property, answers.

    Raises:
        HarnessError: there is no such set, the file is missing, or a row is broken.
    """
    if relations not in KAMEL_SIZES:
        raise HarnessError(f"KAMEL comes with {', '.join(map(str, KAMEL_SIZES))} relations, not {printable(relations)}")
    keys: Keys = {"id": str, "question": str, "property": str, "answers": list}
    return read_json_lines(data_file(f"kamel_test_{relations}.jsonl", folder), keys)


def kamel_properties(relations: int, folder: str | None = None) -> list[str]:
    """Return the properties of the first ``relations`` KAMEL tools, in the order of their index.

    Raises:
        HarnessError: the file is missing or a row is broken.
    """
    rows = read_json_lines(data_file("kamel_relations.jsonl", folder), {"index": int, "property": str})
    return [row["property"] for row in sorted(rows, key=lambda row: row["index"]) if row["index"] < relations]


def plans(folder: str | None = None) -> list[Row]:
    """Return the VirtualHome rows: ``id``, ``prompt``, ``objects`` at hand, ``goal`` and the lines of the ``plan``.

    Raises:
        HarnessError: the file is missing or a row is broken.
    """
    keys: Keys = {"id": str, "prompt": str, "objects": list, "goal": str, "plan": list}
    return read_json_lines(data_file("virtualhome_plans.jsonl", folder), keys)


def plan_tools(folder: str | None = None) -> tuple[list[str], list[str]]:
    """Return the tokens of the VirtualHome actions, ``[END]`` among them, and those of the objects.

    Raises:
        HarnessError: the file is missing or a row is broken.
    """
    rows = read_json_lines(data_file("virtualhome_tools.jsonl", folder), {"token": str, "kind": str})
    actions = [row["token"] for row in rows if row["kind"] == "action"]
    return actions, [row["token"] for row in rows if row["kind"] != "action"]


def plan_examples(folder: str | None = None) -> str:
    """Return the worked plans that stand before every VirtualHome task.

    Raises:
        HarnessError: the file is missing or cannot be read.
    """
    return read_text(data_file("virtualhome_fewshot.txt", folder)).replace("\r\n", "\n")


def _call(call: Any, row_id: str, path: Path) -> dict[str, str]:
    """Return a gold call with ``before``; one that is written out is taken apart."""
    where = f"a call of '{printable(row_id)}' in {printable(path)}"
    if not isinstance(call, dict):
        raise HarnessError(f"{where} is a {type(call).__name__}, where an object is due; correct the line")
    if isinstance(call.get("raw"), str):
        written = _WRITTEN_CALL.fullmatch(call["raw"])
        if written is None:
            raise HarnessError(
                f"{where} is '{printable(call['raw'])}', which is not written as <tool>(arguments)=result"
            )
        return written.groupdict()
    check_keys(call, where, _CALL_KEYS)
    return {"before": "", **{key: call[key] for key in _CALL_KEYS}}
