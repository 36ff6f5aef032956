"""mteb's results: a file for each task in a folder of model and revision, its metrics by split and subset; no documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.foreign.contents import (
    MAIN_SCORE,
    UNKNOWN,
    Given,
    Measured,
    json_of,
    number,
    part,
    score_of,
    time_of,
    with_unknown,
)
from harness.names import printable

TOOL = "mteb"
STATED = frozenset({"task.version"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Numbers beside the metrics that are none: areas under curves of abstention, thresholds, deviations, counts.
_NO_METRIC = re.compile(r"nauc_.*|.*_threshold|.*_std|num_.*")
# Words of names of metrics, by which way of them is good; of others nobody says.
_HIGHER = frozenset(
    {
        "accuracy", "acc", "f1", "precision", "recall", "ap", "ndcg", "map", "mrr", "hit", "pearson", "spearman", "kendalltau",
        "measure", "nmi", "ami", "ari", "lrap", "r2", "hamming", "robustness",
    }
)  # fmt: skip
_LOWER = frozenset({"mse", "mae", "rmse"})
_NO_NAME = "no_model_name/available"


def read(path: Path) -> Given:
    """Return the metrics of a task's file for each split and subset, the main scores first.

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
    told = None if version is None else str(version)
    entries = [(split, entry) for split, several in scores.items() for entry in several]
    whole = [(split, entry) for split, entry in entries if isinstance(entry, dict) and MAIN_SCORE in entry]
    given.problems += [
        f"has no {MAIN_SCORE} of a subset of split '{printable(split)}'"
        for split, entry in entries
        if (split, entry) not in whole
    ]
    for main in (True, False):  # the main score of each split and subset first: it is what a board shows of a task
        for split, entry in whole:
            subset = entry.get("hf_subset", "default")
            chosen = split if subset == "default" else f"{split}/{subset}"
            for name in [MAIN_SCORE] if main else _others(entry):
                metric = {"name": name, "filter": chosen, "higher_is_better": _higher_is_better(name)}
                score = parts | {"metric": metric, **score_of(entry[name])}
                given.scores.append(Measured(with_unknown(TOOL, told, score, stated=stated)))
    return given


def _others(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics beside the main score, those that have a number."""
    return [
        str(name)
        for name, value in entry.items()
        if name != MAIN_SCORE and number(value) is not None and not _NO_METRIC.fullmatch(str(name))
    ]


def _higher_is_better(name: str) -> bool | None:
    words = set(name.split("_"))
    if name == MAIN_SCORE or words & _HIGHER:
        return True
    return False if words & _LOWER else None


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
