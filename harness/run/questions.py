"""What a task will ask, before it is asked: its requests built, its shots, and whether its answers are drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.records.asked import Questions, of_documents
from harness.run.chat import template_of
from harness.tasks import generating
from harness.tasks.warned import heard

if TYPE_CHECKING:
    from harness.run.run import Run


def of_task(task: Any, run: Run) -> Questions:
    """Return what was asked, from the requests that ``task`` holds; the same as ``of_samples`` of their samples."""
    from lm_eval.utils import handle_non_serializable, hash_string

    of_docs: dict[int, list[Any]] = {}
    asked = [instance for instance in task.instances if instance.doc_id >= 0]  # a corpus belongs to no document
    for instance in sorted(asked, key=lambda instance: instance.idx):
        of_docs.setdefault(instance.doc_id, []).append(instance)
    chosen = run.samples.get(task.config.task) if run.samples else None
    # Of chosen documents an instance holds the place among the chosen, a sample the number of the document.
    order = sorted(of_docs, key=lambda place: chosen[place] if chosen else place)

    def hashed(doc: Any) -> str:
        text = json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
        return str(hash_string(text))

    repeated = max((instance.repeats or 1 for instance in task.instances), default=1)
    documents = ((hashed(of_docs[place][0].doc), [one.args for one in of_docs[place]]) for place in order)
    return of_documents(documents, repeats=repeated)


def build(task: Any, run: Run, lm: Any) -> Questions:
    """Have ``task`` make the requests that ``run`` would ask, as lm-eval does, and return what they are."""
    if run.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(run.gen_kwargs), update=True)
    task.set_config(key="num_fewshot", value=shots(task, run))
    task.set_fewshot_seed(seed=run.seeds[3])
    with template_of(run, lm), heard():
        _build(task, run, lm)
    return of_task(task, run)


def _build(task: Any, run: Run, lm: Any) -> None:
    from lm_eval.evaluator_utils import get_sample_size

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


def shots(task: Any, run: Run) -> int:
    """Return how many shots ``run`` would give ``task``: one that fixes 0 keeps it, as in lm-eval."""
    own = task.config.num_fewshot
    return int(own or 0) if own == 0 or run.num_fewshot is None else run.num_fewshot


def draws_answers(task: Any, run: Run) -> bool:
    """Return whether ``task`` has its answers drawn at random, so that another seed gives others."""
    return generating.draws(task, run.gen_kwargs)


def notes_of(task: Any, run: Run) -> dict[str | None, list[str]]:
    """Return sentences on the numbers of ``task`` under one filter, and on all of them under None."""
    repeats = int(getattr(task.config, "repeats", None) or 1)
    notes: dict[str | None, list[str]] = {None: [str(note) for note in getattr(task, "notes", None) or ()]}
    if run.num_fewshot and task.config.num_fewshot == 0:
        notes[None].append(f"the task fixes 0 shots: --num_fewshot {run.num_fewshot} was left aside")
    if repeats > 1 and not draws_answers(task, run):
        notes[None].append(
            f"the {repeats} answers to a document are the same {repeats} times: they are not drawn at random"
        )
    for ensemble in getattr(task, "_filters", None) or () if repeats > 1 else ():
        if _takes_first(ensemble):
            made = "drawn" if draws_answers(task, run) else "made"
            notes[ensemble.name] = [f"{repeats} answers were {made} for each document, one was scored: the first"]
    return notes


def _takes_first(ensemble: Any) -> bool:
    """Return whether a filter leaves all answers to a document but the first aside."""
    from lm_eval.filters import extraction, selection, transformation

    for made in ensemble.filters:
        kind, settings = getattr(made, "func", made), getattr(made, "keywords", {})
        if kind is selection.TakeFirstFilter or (kind is selection.TakeKFilter and settings.get("k") == 1):
            return True
        if getattr(kind, "__module__", "") not in {extraction.__name__, transformation.__name__}:
            return False  # it votes, or does what nobody knows
    return False
