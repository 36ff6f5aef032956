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
from harness.tasks import give_tokenizer

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run import Prepared, Run


def baseline_run(run: Run) -> Run:
    """Return the run that evaluates the untouched model on the same tasks."""
    return replace(run, method="baseline" if run.plugin else None, method_args={}, with_baseline=False, no_cache=False)


def reusable_records(prepared: Prepared, base: Mapping[str, Any], lm: Any) -> list[Record]:
    """Return the baseline's records of an earlier run into the same folder, or nothing when one is missing.

    A record serves when model, tasks with their versions, documents, prompts, settings and the versions of the software
    all agree.
    """
    from harness.results import run_name

    if prepared.run.gen_kwargs.get("do_sample"):
        return []  # drawn answers differ by seed
    folder = prepared.run.output_path / run_name(prepared, base)
    if not folder.is_dir():
        return []
    give_tokenizer(prepared.tasks.tasks, lm.tokenizer)
    here, wanted = _software(prepared.run), {**prepared.tasks.tasks, **prepared.tasks.groups}
    found: list[Record] = []
    for record in ledger.read(folder).records:
        task = wanted.get(record.task.name)
        if task is None or record.status != "ok" or record.environment.model_dump(include=set(here)) != here:
            continue
        if record.task.group or _asks_the_same(record, task, prepared.run, lm):
            found.append(record)
    if not set(wanted) <= {record.task.name for record in found}:
        return []
    say(f"the baseline's records of an earlier run are reused ({printable(folder)})")
    return found


def _software(run: Run) -> dict[str, Any]:
    """Return the versions and the device that a record of this moment would name."""
    from harness.models.loading import pick_device
    from harness.records.environment import environment

    device = pick_device(run.device) if run.model == "hf" else "cpu"
    named = {"torch", "transformers", "lm_eval", "bitsandbytes", "harness_digest", "device"}
    return environment(device).model_dump(include=named)


def _asks_the_same(record: Record, task: Any, run: Run, lm: Any) -> bool:
    """Return whether ``run`` would ask of ``task`` what ``record`` was asked: version, shots, documents and prompts."""
    return (
        record.task.version == str(task.VERSION)
        and record.settings.num_fewshot == _shots(task, run)
        and record.fewshot_seed in {None, run.seeds[3]}
        and record.task.docs_digest == _docs_digest_of(task, run)
        and record.task.prompts_digest == _prompts_digest_of(task, run, lm)
    )


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


def _prompts_digest_of(task: Any, run: Run, lm: Any) -> str | None:
    """Return the digest of what ``run`` would ask of ``task``, as a record of it holds."""
    from lm_eval.evaluator_utils import get_sample_size

    from harness.results import prompts_digest

    with suppress(Exception):
        if run.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(run.gen_kwargs), update=True)
        task.set_config(key="num_fewshot", value=_shots(task, run))
        task.set_fewshot_seed(seed=run.seeds[3])
        task.build_all_requests(
            limit=get_sample_size(task, run.limit),
            samples=run.samples.get(task.config.task) if run.samples else None,
            rank=0,
            world_size=1,
            system_instruction=run.system_instruction,
            apply_chat_template=bool(run.apply_chat_template),
            fewshot_as_multiturn=run.fewshot_as_multiturn,
            chat_template=getattr(lm, "apply_chat_template", None) if run.apply_chat_template else None,
            tokenizer_name=getattr(lm, "tokenizer_name", "") if run.apply_chat_template else "",
        )
        of_docs: dict[Any, list[Any]] = {}
        for instance in sorted(task.instances, key=lambda instance: instance.idx):
            of_docs.setdefault(instance.doc_id, []).append(instance.args)
        return prompts_digest(of_docs[doc] for doc in sorted(of_docs))
    return None
