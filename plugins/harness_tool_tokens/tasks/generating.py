"""What the task files that generate answers call: their documents and their metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness import HarnessError
from harness.names import printable, suggestion
from harness.tasks.numbers import number_after_marker, plain, read_number, score_number
from harness_tool_tokens.tasks import data
from harness_tool_tokens.tasks.enlarging import calls_of, open_slots
from harness_tool_tokens.tools.pairing import call_counts

if TYPE_CHECKING:
    from datasets import Dataset

GSM8K_TOOLS = ["add", "subtract", "multiply", "divide"]
END = "[END]"
# What the reference scores of a plan; longer plans count up to here.
SCORED_LINES = 8
Doc = dict[str, Any]
Splits = dict[str, "Dataset"]


def make_funcqa(
    *, hops: Literal["one_hop", "multi_hop"], wrong_gold: str = "keep", data_folder: str | None = None, **_: Any
) -> Splits:
    """Return the FuncQA questions as split ``test``.

    Args:
        hops: which of the two sets, from the task file.
        wrong_gold: ``keep`` or ``drop`` the questions whose gold answer is known to be wrong.
        data_folder: holds the published data; None: the environment variable ``HARNESS_TOOL_DATA`` names it.
        _: the rest of the metadata, which lm-eval hands over too.

    Raises:
        HarnessError: a file is missing or broken, ``wrong_gold`` is another word, or no question is left.
    """
    if wrong_gold not in ("keep", "drop"):
        raise HarnessError(
            f"wrong_gold in the task's metadata is '{printable(wrong_gold)}'; {suggestion(str(wrong_gold), ['keep', 'drop'])}"
        )
    rows = data.funcqa(hops, data_folder)
    if wrong_gold == "drop":
        issues = data.known_issues(data_folder)
        rows = [row for row in rows if issues.get(row["id"]) != "wrong_gold"]
    text = data.prompt(f"funcqa_{hops}", folder=data_folder)
    return _split(_question(row, text, prompts=f"funcqa_{hops}", calls=row["calls"], tools=None) for row in rows)


def make_gsm8k_xl(*, data_folder: str | None = None, **_: Any) -> Splits:
    """Return the GSM8K-XL questions that have no open slot as split ``test``; only the four basic tools may be called.

    Raises:
        HarnessError: a file is missing or broken, or no question is left.
    """
    text = data.prompt("gsm8k_xl", folder=data_folder)
    return _split(
        _question(row, text, prompts="gsm8k_xl", calls=calls_of([*map(str, row["process"])]), tools=GSM8K_TOOLS)
        for row in data.gsm8k_xl(data_folder)
        if not open_slots(row)
    )


def make_kamel(*, relations: int, data_folder: str | None = None, **_: Any) -> Splits:
    """Return the KAMEL questions for the first ``relations`` tools as split ``test``; only these may be called.

    Raises:
        HarnessError: a file is missing or broken, or there is no such set.
    """
    text = data.prompt("kamel", folder=data_folder)
    rows = data.kamel_questions(relations, data_folder)
    tools = data.kamel_properties(relations, data_folder)
    return _split(_kamel_doc(row, text, tools) for row in rows)


def make_plans(*, holdout: int, data_folder: str | None = None, **_: Any) -> Splits:
    """Return the last ``holdout`` VirtualHome plans as split ``test``: train on the ones before them.

    Raises:
        HarnessError: a file is missing or broken, or ``holdout`` is no whole number from 1 to the number of plans.
    """
    rows = data.plans(data_folder)
    if not isinstance(holdout, int) or isinstance(holdout, bool) or not 1 <= holdout <= len(rows):
        raise HarnessError(f"holdout in the task's metadata is {printable(holdout)}; give 1 to {len(rows)} plans")
    examples = data.plan_examples(data_folder).rstrip("\n") + "\n\n"
    actions, objects = data.plan_tools(data_folder)
    return _split(_plan_doc(row, examples, actions, objects) for row in rows[-holdout:])


def score_one_hop(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return both rules' verdicts on the last number of the answer, and the counts of its calls."""
    return _scored(doc, results[0], read_number(results[0]))


def score_marked(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return both rules' verdicts on the number after the last ``####``, and the counts of the calls."""
    return _scored(doc, results[0], number_after_marker(results[0]))


def score_kamel(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return ``acc`` and the counts of calls.

    ``acc`` is 1 when the gold property is called, or when nothing is called and an accepted answer occurs in the text.
    """
    called = [call["tool"] for call in _trace(results[0])]
    is_said = any(answer and answer in results[0] for answer in doc["answers"])
    is_right = doc["property"] in called if called else is_said
    return {"acc": float(is_right), **_counts(doc, results[0])}


def score_plan(doc: Doc, results: list[str]) -> dict[str, float]:
    """Return the metrics of a plan, of which ``[END]`` ends the reading and 8 lines at most are looked at.

    ``grounding``: 1 when there are lines and each is a known action on an object at hand. ``grounded_lines``: the share
    of the lines that are so. ``exact_plan``: 1 when the lines are the reference plan's. ``line_f1``: F1 of the lines,
    as multisets, against the reference plan's.
    """
    written, reference = plan_lines(results[0]), plan_lines("\n".join(doc["plan"]))
    told = doc["tool_use"]
    possible = {f"{action} <{thing}>" for action in told["actions"] for thing in told["objects"]}
    grounded = sum(line in possible for line in written)
    return {
        "grounding": float(bool(written) and grounded == len(written)),
        "grounded_lines": grounded / len(written) if written else 0.0,
        "exact_plan": float(written == reference),
        "line_f1": _f1(written, reference),
    }


def plan_lines(text: str) -> list[str]:
    """Return the lines of a plan before ``[END]``, single-spaced, empty ones left out, 8 at most."""
    lines = (" ".join(line.split()) for line in text.partition(END)[0].split("\n"))
    return [line for line in lines if line][:SCORED_LINES]


def _split(docs: Iterable[Doc]) -> Splits:
    from datasets import Dataset

    rows = list(docs)
    if not rows:
        raise HarnessError("no question is left for the task; look at its data file")
    return {"test": Dataset.from_list(rows)}


def _question(
    row: Mapping[str, Any], text: str, *, prompts: str, calls: Sequence[Mapping[str, str]], tools: list[str] | None
) -> Doc:
    answer = row["answer"]
    return {
        "id": row["id"],
        "question": row["question"],
        "prompt": data.filled(text, row["question"]),
        "answer": answer if isinstance(answer, str) else plain(answer),
        "tool_use": _tool_use("calls", row["question"], prompts, calls, tools),
    }


def _kamel_doc(row: Mapping[str, Any], text: str, tools: list[str]) -> Doc:
    answers = [str(answer) for answer in row["answers"]]
    call = {"tool": row["property"], "args": "", "result": answers[0] if answers else ""}
    return {
        "id": row["id"],
        "question": row["question"],
        "prompt": data.filled(text, row["question"]),
        "property": row["property"],
        "answers": answers,
        "tool_use": _tool_use("name", row["question"], "kamel", [call], tools),
    }


def _plan_doc(row: Mapping[str, Any], examples: str, actions: list[str], objects: list[str]) -> Doc:
    tokens = [token for line in row["plan"] for token in line.split()]
    calls = [{"tool": token, "args": "", "result": token} for token in tokens]
    told = _tool_use("plan", row["prompt"], "virtualhome", calls, [*actions, *objects])
    acting = [action for action in actions if action != END]
    return {
        "id": row["id"],
        "question": row["goal"],
        "prompt": examples + row["prompt"],
        "plan": row["plan"],
        "tool_use": {**told, "actions": acting, "objects": row["objects"], "end": END},
    }


def _tool_use(
    procedure: str, question: str, prompts: str, calls: Sequence[Mapping[str, str]], tools: list[str] | None
) -> dict[str, Any]:
    """Return what a document tells an LM with tools; see the plugin's README."""
    return {
        "procedure": procedure,
        "question": question,
        "prompts": prompts,
        "calls": [dict(call) for call in calls],
        "tools": tools,
        "actions": [],
        "objects": [],
        "end": END,
    }


def _scored(doc: Doc, answer: str, number: str | None) -> dict[str, float]:
    return {**score_number(doc["answer"], number), **_counts(doc, answer)}


def _counts(doc: Doc, answer: str) -> dict[str, float]:
    """Return the counts of calls by the names they have as metrics; plain text has no trace and so no calls."""
    counts = call_counts(doc["tool_use"]["calls"], _trace(answer))
    return {name if name == "calls" else f"calls_{name}": count for name, count in counts.items()}


def _trace(answer: str) -> Sequence[Mapping[str, Any]]:
    trace: Sequence[Mapping[str, Any]] = getattr(answer, "trace", ())
    return trace


def _f1(written: Sequence[str], reference: Sequence[str]) -> float:
    shared = (Counter(written) & Counter(reference)).total()
    return 2 * shared / (len(written) + len(reference)) if shared else 0.0
