"""The tasks ``tool_choice``: which tool a model's rows choose where a call is due, and whether they are silent elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness import HarnessError
from harness.names import printable
from harness.tasks.own_docs import Doc, OwnDocsTask, whole_number
from harness_tool_tokens.tasks import data
from harness_tool_tokens.tools import data_folder


class ToolChoice(OwnDocsTask):
    """Texts with calls at known places, one ``tool_choice`` request each; nothing is generated and nothing is run.

    ``selection``: share of the calls at which the best tool is the right one. ``recall``: at which it also beats every
    word. ``rank_reciprocal``: mean of 1 / rank of the right tool. ``margin``: its logit minus the best word's. ``false``:
    share of the word positions at which a tool beats every word.
    """

    request_types = ("tool_choice",)
    metrics: ClassVar[dict[str, bool]] = {
        "selection": True,
        "recall": True,
        "rank_reciprocal": True,
        "margin": True,
        "false": False,
    }

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the rows held out of training: drawn per tool as the method's own holdout draws them.

        Metadata:
            rows: a file of rows, by path or by name in the data folder.
            tools: what the rows call, written as the method's option of this name.
            holdout: rows per tool; holdout_seed: draws them.
            data_folder: see the README.
        """
        from harness_tool_tokens.rows.texts import read_rows, split
        from harness_tool_tokens.tools.toolbox import Toolbox

        holdout = whole_number("holdout", metadata["holdout"], at_least=1)
        seed = whole_number("holdout_seed", metadata["holdout_seed"], at_least=0)
        toolbox = Toolbox.load(str(metadata["tools"]).split("+"), folder=metadata.get("data_folder"))
        rows = read_rows(data_folder.find(str(metadata["rows"]), metadata.get("data_folder")), toolbox)
        _, held_out = split(rows, holdout=holdout, seed=seed)
        if not held_out:
            raise HarnessError(
                f"no row of {printable(metadata['rows'])} can be held out; it needs two rows of one tool"
            )
        return [
            {"id": row.id, "text": row.text, "calls": [_place(call.tool, call.start, call.end) for call in row.calls]}
            for row in held_out
        ]

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the text with the places of its calls."""
        return [(doc["text"], {"calls": doc["calls"]})]

    def score(self, doc: Doc, answers: list[Any]) -> dict[str, float]:
        """Return the means over the calls of one text, and the share of false calls."""
        [answer] = answers
        calls = answer["calls"]
        hits = [call["best"] == call["tool"] for call in calls]
        fires = [hit and bool(call["fires"]) for hit, call in zip(hits, calls, strict=True)]
        return {
            "selection": _mean(hits),
            "recall": _mean(fires),
            "rank_reciprocal": _mean([1 / call["rank"] for call in calls]),
            "margin": _mean([call["margin_to_word"] for call in calls]),
            "false": answer["false"] / answer["word_positions"] if answer["word_positions"] else 0.0,
        }


class KamelChoice(ToolChoice):
    """KAMEL questions up to "The answer is": the call comes next."""

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return the questions about the first ``relations`` properties, from the test set of that number of tools."""
        relations, folder = metadata["relations"], metadata.get("data_folder")
        rows = data.kamel_questions(relations, folder)
        known = set(data.kamel_properties(relations, folder))
        rows = [row for row in rows if row["property"] in known]
        if not rows:
            raise HarnessError(f"no question of kamel_test_{printable(relations)}.jsonl is about one of its relations")
        return [_kamel_doc(row) for row in rows]


def _kamel_doc(row: Mapping[str, Any]) -> Doc:
    text = f"Question: {row['question']}\nAnswer: The answer is"
    return {"id": row["id"], "text": text, "calls": [_place(row["property"], len(text), len(text))]}


def _place(tool: str, start: int, end: int) -> dict[str, Any]:
    return {"tool": tool, "start": start, "end": end}


def _mean(values: list[Any]) -> float:
    return float(sum(values) / len(values)) if values else 0.0
