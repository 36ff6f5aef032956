"""The words of a run: read by the command line, they give the run that wrote them."""

from __future__ import annotations

import shlex
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.cli import build_parser
from harness.run.flags import to_run
from harness.run.run import Run
from harness.run.shard import Shard

PARSER = build_parser()
# What a process can be given: no NUL, and text that UTF-8 can hold.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TASKS = st.from_regex(r"[A-Za-z0-9_*./:|+-]{1,12}", fullmatch=True)
SEEDS = st.none() | st.integers(0, 2**32 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.lists(st.integers(0, 10_000), min_size=1, max_size=4, unique=True)
# Values of ``model_args`` and ``method_args`` are text until a model or a method gives them types.
RUNS = st.builds(
    Run,
    tasks=st.lists(TASKS, max_size=3).map(tuple),
    plugin=st.none() | TEXTS,
    method=st.none() | TEXTS,
    method_args=st.dictionaries(NAMES, TEXTS, max_size=3),
    model=st.sampled_from(["hf", "tokenizer"]),
    model_args=st.dictionaries(NAMES.filter(lambda name: name != "trust_remote_code"), TEXTS, max_size=3),
    quantization=st.sampled_from(["none", "int8", "nf4"]),
    num_fewshot=st.none() | st.integers(0, 50),
    batch_size=st.sampled_from(["auto", "auto:4"]) | st.integers(1, 512),
    device=st.none() | TEXTS,
    limit=st.none() | st.floats(0.001, 1e6),
    samples=st.none() | st.dictionaries(TASKS, NUMBERS, min_size=1, max_size=2),
    seeds=st.tuples(SEEDS, SEEDS, SEEDS, SEEDS),
    gen_kwargs=st.dictionaries(NAMES, JSON, max_size=3),
    apply_chat_template=st.booleans() | TEXTS,
    fewshot_as_multiturn=st.booleans(),
    system_instruction=st.none() | TEXTS,
    include_path=st.lists(TEXTS, max_size=2).map(tuple),
    metadata=st.dictionaries(NAMES, JSON, max_size=3),
    output_path=TEXTS.map(Path),
    log_samples=st.booleans(),
    with_baseline=st.booleans(),
    no_cache=st.booleans(),
    timeout_task=st.none() | st.floats(0.001, 1e6),
    confirm_run_unsafe_code=st.booleans(),
    shard=st.none() | st.integers(1, 9).map(lambda number: Shard(number, 9)),
)


@settings(max_examples=150, deadline=None)
@given(RUNS)
@example(Run(tasks=("a",), system_instruction="--brief", method_args={"text": "-1"}, output_path=Path("-o")))
@example(Run(tasks=("a",), model_args={"text": "\r", "other": "("}))
def test_a_run_survives_its_words_and_words_a_shell(run: Run) -> None:
    words = run.words()
    assert to_run(PARSER.parse_args(["eval", *words])) == run
    assert shlex.split(shlex.join(words)) == words
