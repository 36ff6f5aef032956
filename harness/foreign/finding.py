"""Which files below a folder are results of other tools, by their beginnings; lm-eval's files of a run of our own are not."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from harness.plain_files import find_plain, open_plain

LM_EVAL, INSPECT, MTEB, EVERY_EVAL_EVER = "lm-eval", "inspect", "mteb", "Every Eval Ever"
KNOWN = f"{LM_EVAL}, {INSPECT}, {MTEB} and {EVERY_EVAL_EVER}"
_ENDINGS = (".json", ".eval")
_ZIP = b"PK\x03\x04"
_HEAD_BYTES = 4096
# The first fields of each kind of file. lighteval's results_*.json begin with another one than lm-eval's.
_BEGINNINGS = (
    (LM_EVAL, re.compile(rb'\A\s*\{\s*"results"\s*:\s*\{')),
    (INSPECT, re.compile(rb'\A\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:')),
    (MTEB, re.compile(rb'\A\s*\{(?=[^{]*"task_name"\s*:)(?=[^{]*"(?:mteb_version|dataset_revision)"\s*:)')),
    (EVERY_EVAL_EVER, re.compile(rb'\A\s*\{\s*"schema_version"\s*:\s*"[^"]*"\s*,\s*"evaluation_id"\s*:')),
)
_OURS = re.compile(r"run\.json|records(_.*)?\.jsonl")


def kind_of(path: Path) -> str | None:
    """Return whose result a file is, None where it is none that is known here, or cannot be read."""
    if path.suffix not in _ENDINGS:
        return None
    try:
        with open_plain(path) as file:
            head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return None
    if path.suffix == ".eval":
        # A log that is cut keeps its name, and deserves its sentence.
        return INSPECT if head.startswith(_ZIP) or not head else None
    return next((kind for kind, beginning in _BEGINNINGS if beginning.match(head)), None)


def find(folder: Path) -> list[Path]:
    """Return the results of other tools below a folder in the order of their paths, without those that lie in runs of ours."""
    found = find_plain(
        folder,
        is_wanted=lambda name: name.endswith(_ENDINGS) and not name.startswith("."),
        is_skipped=lambda name: name.startswith(".") or name == "artefacts",
    )
    is_of_ours = functools.cache(_is_of_ours)
    kinds = ((path, kind_of(path)) for path in found.files)
    return [path for path, kind in kinds if kind and not (kind == LM_EVAL and is_of_ours(path.parent))]


def lies_in_a_run(path: Path) -> bool:
    """Whether a file is one that lm-eval writes in a run of ours, which has records of it."""
    return kind_of(path) == LM_EVAL and _is_of_ours(path.parent)


def is_of_samples(name: str) -> bool:
    """Whether a file is called like the samples that lie beside a file of Every Eval Ever."""
    return name.endswith("_samples.jsonl")


def lies_beside_results(path: Path) -> bool:
    """Whether a file of JSON lines belongs to a result of another tool, and so is none of records."""
    if path.name == "run_settings.jsonl":
        return path.with_name("model_meta.json").exists()
    if not is_of_samples(path.name):
        return False
    return kind_of(path.with_name(path.name.removesuffix("_samples.jsonl") + ".json")) == EVERY_EVAL_EVER


def _is_of_ours(folder: Path) -> bool:
    """Whether a folder, or the one above it, is that of a run: lm-eval's files lie in one of the model's name there."""
    resolved = folder.resolve()
    for place in (resolved, resolved.parent):
        try:
            if any(_OURS.fullmatch(entry.name) for entry in place.iterdir()):
                return True
        except OSError:
            continue
    return False
