"""lm-eval's own tasks, their files as they stand, give the same results with ``CausalLM`` as with ``HFLM``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pytest
import torch
from builtin_rows import ROWS, splits
from lm_eval.evaluator import evaluate, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny_models import SIZES

from harness.models.causal import CausalLM

# Of so few rows a bootstrap draws some with one label.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:sklearn"),
    pytest.mark.xdist_group("builtin tasks"),  # one model that half knows the rows
]

TASKS = Path(lm_eval.__file__).parent / "tasks"
LONGEST = 1024
NEW_TOKENS = 24
# Their own code cannot make a shot of an array, of several answers, or at all; whole texts have none.
ONLY_ZERO_SHOT = {
    "toxigen/toxigen",
    "webqs/webqs",
    "squad_completion/squad_completion",
    "wikitext/wikitext",
    "pile_10k/pile_10k",
}
Evaluate = Callable[[Any], dict[str, Any]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


@cache
def dataset_of(file: str) -> dict[str, Any]:
    """Return our rows by the names that built-in tasks give their splits."""
    rows = {name: datasets.Dataset.from_list(some) for name, some in splits(file).items()}
    names = dict.fromkeys(["train", "train_r1", "dev"], rows["train"])
    return names | dict.fromkeys(["validation", "valid", "test", "dev_r1", "test_r1"], rows["test"])


def load_task(file: str, shots: int | None = None) -> Any:
    """Load a built-in task from its file, with our rows where it would download its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", lambda *args, **settings: dataset_of(file))
        manager = TaskManager(include_defaults=False)  # a task's path needs no index, which takes seconds
        [task] = manager.load([str(TASKS / f"{file}.yaml")])["tasks"].values()
    if task.OUTPUT_TYPE == "generate_until":
        task.set_config("generation_kwargs", {"max_gen_toks": NEW_TOKENS}, update=True)  # as --gen_kwargs does
    if shots is not None and task.config.num_fewshot != 0:
        task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    return task


def text_of(task: Any, request: Any) -> str:
    """Return a request with an answer, as one text."""
    if request.request_type == "loglikelihood":
        return str(request.args[0] + request.args[1])
    if request.request_type == "loglikelihood_rolling":
        return str(request.args[0])
    answer = task.doc_to_target(request.doc)
    return f"{request.args[0]} {answer[0] if isinstance(answer, list) else answer}.\n\n"


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A tiny Llama that half knows our rows, so that some choices are its own and some texts end early."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ids: list[int] = []
    for task in [load_task(file, 0) for file in ROWS]:
        task.build_all_requests(rank=0, world_size=1)
        for request in task.instances:
            if request.idx == 0:
                ids += [*tokenizer.encode(text_of(task, request)[-80:]), tokenizer.eos_token_id]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **SIZES,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
    )
    made = LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(300):
        starts = torch.randint(len(ids) - 64, (8,)).tolist()
        batch = torch.tensor([ids[start : start + 64] for start in starts])
        made(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return made.eval()


def evaluate_with_both(
    model: Any, tokenizer: Any, run: Evaluate, **settings: Any
) -> tuple[dict[str, Any], dict[str, Any], CausalLM]:
    """Return the results of ``HFLM``, one request at a time, those of ``CausalLM``, and the latter."""
    reference = HFLM(
        pretrained=copy.deepcopy(model), tokenizer=tokenizer, batch_size=1, softmax_dtype="float32", **settings
    )
    lm = CausalLM(model, tokenizer, **settings)
    return run(reference), run(lm), lm


def is_close(ours: float, theirs: float) -> bool:
    """Return whether two numbers are the same in the four decimals lm-eval prints, or to float32's precision."""
    return math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=5e-5)


def assert_same_answer(ours: Any, theirs: Any, where: object) -> None:
    """Compare a text, a score, or a score with whether the continuation is the model's own choice."""
    if isinstance(theirs, str):
        assert ours == theirs, where
    elif isinstance(theirs, tuple):
        assert ours[1] is theirs[1] and is_close(ours[0], theirs[0]), (where, ours, theirs)
    else:
        assert is_close(ours, theirs), (where, ours, theirs)


def assert_same_results(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compare every metric with its standard error, every request asked and every answer given."""
    assert ours["results"].keys() == theirs["results"].keys() and ours["n-shot"] == theirs["n-shot"]
    for task, expected in theirs["results"].items():
        assert ours["results"][task].keys() == expected.keys()
        for metric, value in expected.items():
            found = ours["results"][task][metric]
            same = is_close(found, value) if isinstance(value, float) else found == value
            assert same or (found != found and value != value), (task, metric, found, value)
        for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert mine["prompt_hash"] == other["prompt_hash"] and mine["arguments"] == other["arguments"]
            for place, (found, answers) in enumerate(zip(mine["resps"], other["resps"], strict=True)):
                for answer, expected_answer in zip(found, answers, strict=True):
                    assert_same_answer(answer, expected_answer, (task, mine["doc_id"], mine["arguments"][place]))


def assert_took_the_fast_path(lm: CausalLM) -> None:
    assert lm._sharing.refusal is None
    assert lm.work.plain_tokens == 0 and lm.work.pushed_tokens > 0


CASES = [
    pytest.param(file, shots, id=f"{file}-{shots}")
    for file in ROWS
    for shots in (0, 2)
    if not (shots and file in ONLY_ZERO_SHOT)
]


@pytest.mark.parametrize(("file", "shots"), CASES)
def test_a_builtin_task_has_the_same_results(model: Any, tokenizer: Any, file: str, shots: int) -> None:
    def run(lm: Any) -> dict[str, Any]:
        task = load_task(file, shots)
        found: dict[str, Any] = evaluate(
            lm, {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=0
        )
        return found

    theirs, ours, lm = evaluate_with_both(model, tokenizer, run)
    assert_same_results(ours, theirs)
    assert_took_the_fast_path(lm)
    [settings] = ours["configs"].values()
    if settings["output_type"] in ("multiple_choice", "loglikelihood"):
        assert lm.work.share is not None and lm.work.share >= 0.9


@pytest.mark.parametrize("context", [LONGEST, 160])
def test_all_tasks_at_once_have_the_same_results(model: Any, tokenizer: Any, context: int) -> None:
    def run(lm: Any) -> dict[str, Any]:
        manager = TaskManager(include_defaults=False)
        found: dict[str, Any] = simple_evaluate(
            lm, tasks=[load_task(file) for file in ROWS], task_manager=manager, bootstrap_iters=0
        )
        return found

    theirs, ours, lm = evaluate_with_both(model, tokenizer, run, max_length=context)
    assert len(ours["results"]) == len(ROWS)
    assert_same_results(ours, theirs)
    assert_took_the_fast_path(lm)
    # The comparison means something: both kinds of answer occur, and texts that end at their stop strings.
    answers = [answer for samples in ours["samples"].values() for sample in samples for answer, *_ in sample["resps"]]
    choices = [answer[1] for answer in answers if isinstance(answer, tuple)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    assert any(choices) and not all(choices)
    assert len(set(texts)) > 10 and any(len(tokenizer.encode(text)) < NEW_TOKENS - 4 for text in texts)
