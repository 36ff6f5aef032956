"""What a task will ask, before it is asked: its requests built, its shots, and whether its answers are drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.records.asked import Questions, of_documents
from harness.requests import is_drawn

if TYPE_CHECKING:
    from harness.run.run import Run


def of_task(task: Any, run: Run) -> Questions:
    """Return what was asked, from the requests that ``task`` holds; the same as ``of_samples`` of their samples."""
    from lm_eval.utils import handle_non_serializable, hash_string

    of_docs: dict[int, list[Any]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        of_docs.setdefault(instance.doc_id, []).append(instance)
    chosen = run.samples.get(task.config.task) if run.samples else None
    # Of chosen documents an instance holds the place among the chosen, a sample the number of the document.
    order = sorted(of_docs, key=lambda place: chosen[place] if chosen else place)

    def hashed(doc: Any) -> str:
        text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
        return str(hash_string(text))

    return of_documents((hashed(of_docs[place][0].doc), [one.args for one in of_docs[place]]) for place in order)


def build(task: Any, run: Run, lm: Any) -> Questions:
    """Have ``task`` make the requests that ``run`` would ask, as lm-eval does, and return what they are."""
    from lm_eval.evaluator_utils import get_sample_size

    if run.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(run.gen_kwargs), update=True)
    task.set_config(key="num_fewshot", value=shots(task, run))
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
    return of_task(task, run)


def shots(task: Any, run: Run) -> int:
    """Return how many shots ``run`` would give ``task``: one that fixes 0 keeps it, as in lm-eval."""
    own = task.config.num_fewshot
    return int(own or 0) if own == 0 or run.num_fewshot is None else run.num_fewshot


def draws_answers(task: Any, run: Run) -> bool:
    """Return whether ``task`` has its answers drawn at random, so that another seed gives others."""
    if str(getattr(task, "OUTPUT_TYPE", "")) != "generate_until":
        return False
    return is_drawn({**(task.config.generation_kwargs or {}), **run.gen_kwargs})
