"""lm-eval's own results and sample files of each run, found beside the records, without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import HarnessError
from harness.names import printable, safe_name
from harness.plain_files import find_plain, read_plain
from harness.progress import say
from harness.publishing.files import PlannedFile, planned
from harness.publishing.selection import Item, redacted_lines
from harness.redaction import redact, redact_json

_TIME = re.compile(r"results_(.+)\.json")
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


@dataclass(frozen=True)
class LmEvalRun:
    """What lm-eval wrote for one model in one run: its results file, and the sample files of the same time."""

    run: str
    model: str
    results: Path
    samples: tuple[Path, ...]

    def read(self) -> dict[str, Any]:
        """Return the results, without secrets."""
        content = redact_json(_json(self.results))
        return content if isinstance(content, dict) else {}

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the rows of one of its sample files, without secrets."""
        for line in redacted_lines(path):
            yield json.loads(line)


def find_runs(folder: Path) -> list[LmEvalRun]:
    """Return the runs with files of lm-eval below ``folder``, in the order of their names.

    Raises:
        HarnessError: there is none.
    """
    runs = []
    for results in _results_files(folder) if folder.is_dir() else []:
        relative = results.relative_to(folder).parts
        ending = results.name.removeprefix("results").removesuffix(".json")
        samples = sorted(path for path in results.parent.glob(f"samples_*{ending}.jsonl") if path.is_file())
        # The folder of a run holds one of the model; given the run's folder itself, that is its name.
        run = results.parent.parent if len(relative) > 2 else folder
        runs.append(LmEvalRun(run.resolve().name, results.parent.name, results, tuple(samples)))
    if not runs:
        raise HarnessError(
            f"no files of lm-eval below '{printable(folder)}' (results_TIME.json); give a folder that `harness eval` wrote"
        )
    return runs


def _results_files(folder: Path) -> list[Path]:
    """Return the results files below ``folder``, and say what has their name and is no plain file."""
    found = find_plain(
        folder,
        is_wanted=lambda name: _TIME.fullmatch(name) is not None,
        is_skipped=lambda name: name.startswith(".") or name == "artefacts",
    )
    for sentence in found.passed_over:
        say(f"passed over: {sentence}")
    return found.files


def export(folder: Path) -> list[PlannedFile]:
    """Return lm-eval's files of all runs below ``folder``, one folder a run as viewers of lm-eval expect it."""
    files = []
    for run in find_runs(folder):
        target = PurePosixPath(safe_name(redact(f"{run.model}__{run.run}")))
        for path in run.samples:
            files.append(PlannedFile(target / path.name, lambda path=path: redacted_lines(path)))  # type: ignore[misc]
        text = json.dumps(run.read(), indent=2, ensure_ascii=False)
        files.append(planned(target / run.results.name, text.encode("utf-8", "surrogateescape")))
    return files


def data_source(item: Item) -> dict[str, Any]:
    """Return where the documents of a record come from, as its task file says; its name alone when that is not here."""
    record = item.record
    other = {"dataset_name": record.task.name, "source_type": "other"}
    details = {"task_version": record.task.version, "docs_digest": record.task.docs_digest or "unknown"}
    config = _task_config(item.samples.source.parent, record.task.name) if item.samples else {}
    name = config.get("dataset_path")
    if not isinstance(name, str) or not _HUB_NAME.fullmatch(name) or config.get("custom_dataset"):
        return other | {"additional_details": details}
    split = config.get("test_split") or config.get("validation_split")
    return {
        "dataset_name": record.task.name,
        "source_type": "hf_dataset",
        "hf_repo": name,
        **({"hf_split": split} if isinstance(split, str) else {}),
        "samples_number": record.counts.docs,
        "additional_details": details,
    }


@lru_cache(maxsize=64)
def _configs(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.glob("results_*.json") if path.is_file()):
        content = _json(path)
        configs = content.get("configs") if isinstance(content, dict) else None
        found |= configs if isinstance(configs, dict) else {}
    return found


def _task_config(folder: Path, task: str) -> dict[str, Any]:
    config = _configs(folder).get(task)
    return config if isinstance(config, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(read_plain(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HarnessError(f"{printable(path)} cannot be read: {printable(error)[:200]}") from error
