"""mteb's results: a file for each task in a folder of model and revision, its main score by split and subset; no documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.foreign.contents import UNKNOWN, Given, Measured, json_of, number, part, score_of, time_of, with_unknown
from harness.names import printable

TOOL = "mteb"
METRIC = "main_score"
STATED = frozenset({"task.version"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_NAME = "no_model_name/available"


def read(path: Path) -> Given:
    """Return the main scores of a task's file, one for each split and subset.

    Raises:
        HarnessError: it is no whole JSON, or not of a form that is known here.
    """
    content, given = json_of(path), Given()
    scores = part(content, "scores")
    if not scores or not all(isinstance(several, list) for several in scores.values()):
        raise HarnessError(
            "has no scores by split under 'scores', as mteb 1.11 to 2 write them; another version may write others: upgrade "
            "token-harness"
        )
    version, revision = content.get("mteb_version"), content.get("dataset_revision")
    parts = {
        "created": time_of(content.get("date")), "run": path.parent.name,
        **_model(path),
        "task": {"name": str(content.get("task_name") or path.stem), "version": str(revision) if revision else None},
        "cost": {"evaluate_seconds": number(content.get("evaluation_time"))},
    }  # fmt: skip
    stated = {*STATED} if revision else set()
    stated |= {"cost"} if number(content.get("evaluation_time")) is not None else set()
    stated |= {"model.digest"} if "digest" in parts["model"] else set()
    for split, several in scores.items():
        for entry in several:
            subset = entry.get("hf_subset", "default") if isinstance(entry, dict) else None
            if subset is None or METRIC not in entry:
                given.problems.append(f"has no {METRIC} of a subset of split '{printable(split)}'")
                continue
            chosen = split if subset == "default" else f"{split}/{subset}"
            metric = {"name": METRIC, "filter": chosen, "higher_is_better": True}
            score = parts | {"metric": metric, **score_of(entry[METRIC])}
            told = None if version is None else str(version)
            given.scores.append(Measured(with_unknown(TOOL, told, score, stated=stated)))
    return given


def _model(path: Path) -> dict[str, Any]:
    """Return the parts that tell model and method, from the file beside the scores, else from the names of the folders."""
    try:
        meta = json_of(path.with_name("model_meta.json"))
    except HarnessError:
        meta = None
    revision = part(meta).get("revision") or path.parent.name
    name = part(meta).get("name") or path.parent.parent.name.replace("__", "/", 1)
    model: dict[str, Any] = {"name": str(name or UNKNOWN), "parameters": part(meta).get("n_parameters")}
    if isinstance(revision, str) and _COMMIT.fullmatch(revision):
        model["digest"] = revision
    elif revision and "no_revision" not in str(revision):
        model["revision"] = str(revision)
    found: dict[str, Any] = {"model": model}
    if name == _NO_NAME:  # several models may bear it
        found["settings"] = {"model_args": {"folder": str(path.parent.parent)}}
    if options := part(meta, "experiment_kwargs"):
        found["method"] = {"name": TOOL, "options": options}
    return found
