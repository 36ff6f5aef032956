"""The untouched model's side of a comparison: its run, and its records when an earlier run left them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.names import printable
from harness.progress import say
from harness.records import ledger

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run import Prepared, Run


def baseline_run(run: Run) -> Run:
    """Return the run that evaluates the untouched model on the same tasks."""
    return replace(run, method="baseline" if run.plugin else None, method_args={}, with_baseline=False, no_cache=False)


def reusable_records(prepared: Prepared, base: Mapping[str, Any]) -> list[Record]:
    """Return the baseline's records of an earlier run into the same folder, or nothing when one is missing.

    A record serves when model, tasks with their versions, settings and the versions of the software all agree.
    """
    from harness.records.environment import environment
    from harness.results import settings_of

    if prepared.run.apply_chat_template or prepared.run.gen_kwargs.get("do_sample"):
        return []  # a template may have changed, and samples differ by seed
    run, path = prepared.run, prepared.run.output_path / ledger.RECORDS_FILE
    if not path.is_file():
        return []
    from harness.models.loading import pick_device

    device = pick_device(run.device) if run.model == "hf" else "cpu"
    same_software = {"torch", "transformers", "lm_eval", "bitsandbytes", "harness_digest", "device"}
    here = environment(device).model_dump(include=same_software)
    wanted = {**prepared.tasks.tasks, **prepared.tasks.groups}
    found: list[Record] = []
    for record in ledger.read_file(path).records:
        task = wanted.get(record.task.name)
        if task is None or not record.is_baseline or record.model.digest != prepared.source.digest:
            continue
        settings = settings_of(run, record.settings.num_fewshot)
        same = [
            record.model.quantization == run.quantization,
            record.model.dtype == base["dtype"],
            record.model.tokenizer_digest == base["tokenizer_digest"],
            record.settings == settings,
            record.task.group or record.settings.num_fewshot == _shots(task, run),
            record.model.name == prepared.source.name,
            record.fewshot_seed in {None, run.seeds[3]},
            record.environment.model_dump(include=set(here)) == here,
            record.task.group or record.task.version == str(task.VERSION),
            record.task.group or record.task.docs_digest == _docs_digest_of(task, run),
        ]
        if all(same):
            found.append(record)
    if not set(wanted) <= {record.task.name for record in found}:
        return []
    say(f"the baseline's records of an earlier run are reused ({printable(path)})")
    return found


def _shots(task: Any, run: Run) -> int:
    """Return how many shots ``run`` would give ``task``: one that fixes 0 keeps it, as in lm-eval."""
    own = task.config.num_fewshot
    return int(own or 0) if own == 0 or run.num_fewshot is None else run.num_fewshot


def _docs_digest_of(task: Any, run: Run) -> str | None:
    """Return the digest of the documents that ``run`` would ask of ``task``, as a record of it holds."""
    from lm_eval.evaluator_utils import get_sample_size
    from lm_eval.utils import handle_non_serializable, hash_string

    from harness.results import joined_digest

    with suppress(Exception):  # a task of an unusual kind is evaluated again rather than trusted
        indices = run.samples.get(task.config.task) if run.samples else None
        limit = get_sample_size(task, run.limit)
        docs = task.doc_iterator(rank=0, limit=limit, world_size=1, samples=indices)
        hashes = [
            hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))
            for _, doc in docs
        ]
        return joined_digest([joined_digest(hashes)])
    return None
