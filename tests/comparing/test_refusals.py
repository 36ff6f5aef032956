"""What harness compare refuses, with the field and both values, and what it compares when it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import make_record, write_run

from harness.cli import main
from harness.comparing.comparison import Comparison, Request, compare
from harness.comparing.sides import Pool, find_sides
from harness.errors import HarnessError
from harness.records import ledger

FEW = [float(x) for x in np.random.default_rng(0).random(40) < 0.5]


def compared(folder: Path, *words: str, **request: Any) -> Comparison:
    return compare(find_sides(words or ("baseline", "m"), Pool(folder)), Request(**request))


DIFFERING: list[tuple[dict[str, Any], str, str, str]] = [
    ({"settings": {"num_fewshot": 5}}, "num_fewshot", "none", "5"),
    ({"settings": {"limit": 6.0}, "task": {"docs_digest": "other"}}, "limit", "none", "6"),
    ({"settings": {"apply_chat_template": True}}, "apply_chat_template", "False", "True"),
    ({"settings": {"system_instruction": "Be brief"}}, "system_instruction", "none", "Be brief"),
    ({"settings": {"gen_kwargs": {"top_p": 0.5}}}, "gen_kwargs", "{}", '{"top_p": 0.5}'),
    ({"task": {"version": "2.0"}}, "task.version", "1.0", "2.0"),
    ({"task": {"docs_digest": "other"}}, "task.docs_digest", "", "other"),
    ({"task": {"prompts_digest": "other"}}, "task.prompts_digest", "same", "other"),
    ({"model": {"name": "large"}}, "model.name", "tiny", "large"),
    ({"model": {"digest": "ffff"}}, "model.digest", "0123456789abcdef", "ffff"),
    ({"model": {"dtype": "bfloat16"}}, "model.dtype", "float32", "bfloat16"),
    ({"model": {"quantization": "nf4"}}, "model.quantization", "none", "nf4"),
    ({"tokenizer": {"prefix_token_id": 7}}, "tokenizer.prefix_token_id", "3", "7"),
]


@pytest.mark.parametrize(("part", "field", "ours", "theirs"), DIFFERING, ids=[field for _, field, _, _ in DIFFERING])
def test_what_does_not_compare_is_refused_with_field_and_values(
    tmp_path: Path, part: dict[str, Any], field: str, ours: str, theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known: dict[str, Any] = {"task": {"prompts_digest": "same"}, "tokenizer": {"prefix_token_id": 3}}
    write_run(tmp_path, {"t": {"acc": FEW}}, **known)
    changed = {name: known.get(name, {}) | part.get(name, {}) for name in {**known, **part}}
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m", **changed)
    assert main(["compare", "baseline", "m", "--records", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"task 't' does not compare: {field} is {ours}" in said
    assert f"in 'baseline' and {theirs} in 'm'" in said


def test_an_invalid_record_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}, "u": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}, "u": {"acc": FEW}}, method="m", seed=1)
    broken = make_record(
        "t",
        "acc",
        None,
        docs=40,
        docs_digest=None,
        method="m",
        seed=2,
        more={"status": "invalid", "counts": {"not_finite": 3}},
    )
    ledger.write(tmp_path / "broken.jsonl", [broken])
    with pytest.raises(HarnessError, match="task 't' of 'm' is invalid: 3 requests gave no finite number"):
        compared(tmp_path)
    assert len(compared(tmp_path, tasks=("u",)).rows) == 1


def test_shots_drawn_by_other_seeds_are_refused(tmp_path: Path) -> None:
    shots = {"settings": {"num_fewshot": 5}}
    write_run(tmp_path, {"t": {"acc": FEW}}, seed=1, **shots)
    write_run(tmp_path, {"t": {"acc": FEW}}, seed=2, method="m", **shots)
    with pytest.raises(HarnessError, match=r"seeds\.fewshot is 1 in 'baseline' and 2 in 'm'"):
        compared(tmp_path)
    write_run(tmp_path, {"t": {"acc": FEW}}, seed=2, **shots)
    write_run(tmp_path, {"t": {"acc": FEW}}, seed=1, method="m", **shots)
    assert len(compared(tmp_path).rows[0].first.by_seed) == 2


def test_of_partial_and_whole_runs_the_whole_ones_are_compared(tmp_path: Path) -> None:
    for method in ("baseline", "m"):
        write_run(tmp_path, {"t": {"acc": FEW[:5]}}, method=method, settings={"limit": 5.0})
        write_run(tmp_path, {"t": {"acc": FEW}}, method=method)
    [row] = compared(tmp_path).rows
    assert row.documents == 40


def test_a_limit_that_cuts_nothing_is_no_difference(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m", settings={"limit": 1_000.0})
    assert compared(tmp_path).rows[0].documents == 40


def test_fields_may_differ_when_the_user_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "full", {"t": {"acc": FEW}})
    write_run(tmp_path / "small", {"t": {"acc": FEW}}, model={"quantization": "nf4", "dtype": "bfloat16"})
    words = str(tmp_path / "full"), str(tmp_path / "small")
    with pytest.raises(HarnessError, match="--across quantization"):
        compared(tmp_path, *words)
    assert compared(tmp_path, *words, across=("quantization",)).rows
    assert compared(tmp_path, "quantization=none", "quantization=nf4").rows, "the selectors say it"
    with pytest.raises(HarnessError, match="'limit' is no field that may differ"):
        compared(tmp_path, *words, across=("limit",))


def test_documents_that_changed_are_refused_unless_drift_is_allowed(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW[10:] + [1.0] * 10}}, method="m", first_document=10)
    with pytest.raises(HarnessError, match=r"docs_digest .* --allow-drift"):
        compared(tmp_path)
    comparison = compared(tmp_path, allow_drift=True)
    [row] = comparison.rows
    assert (row.documents, row.up, row.down) == (30, 0, 0)
    assert row.first.value == row.second.value == pytest.approx(np.mean(FEW[10:]))
    assert "t: 30 shared of 40 and 40 documents" in comparison.notes[0]


def test_a_changed_sample_file_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    [record] = write_run(tmp_path, {"t": {"acc": FEW}}, method="m")
    assert record.samples is not None and record.run is not None
    path = tmp_path / record.run / record.samples.path
    path.write_text(path.read_text(encoding="utf-8").replace('"acc": 0.0', '"acc": 1.0'), encoding="utf-8")
    with pytest.raises(HarnessError, match="is not the sample file"):
        compared(tmp_path)


@pytest.mark.parametrize(
    ("part", "flags"),
    [
        ({"model": {"quantization": "nf4", "dtype": "bfloat16"}}, "--across quantization"),
        ({"model": {"digest": "ada9"}, "settings": {"model_args": {"peft": "mine"}}}, "--across adapter"),
        ({"tokenizer": {"prefix_token_id": 7}}, "--across prefix_token"),
        (
            {"tokenizer": {"prefix_token_id": 7}, "settings": {"model_args": {"prefix_token_id": 7}}},
            "--across prefix_token",
        ),
        ({"model": {"tokenizer_digest": "other"}, "tokenizer": {"prefix_token_id": 7}}, "--across tokenizer"),
        ({"model": {"name": "large", "digest": "f", "quantization": "nf4"}}, "--across model,quantization"),
        ({"settings": {"num_fewshot": 5}, "task": {"prompts_digest": "other"}}, "--across num_fewshot"),
        ({"settings": {"model_args": {"max_length": 9}}}, "--across model_args"),
        ({"task": {"prompts_digest": "other"}}, "--across prompts"),
        ({"task": {"docs_digest": "other", "prompts_digest": "other"}}, "--allow-drift"),
        ({"task": {"docs_digest": "other"}, "model": {"dtype": "float16"}}, "--across dtype --allow-drift"),
    ],
)
def test_flags_that_are_advised_make_the_sides_compare(tmp_path: Path, part: dict[str, Any], flags: str) -> None:
    known: dict[str, Any] = {
        "task": {"prompts_digest": "same"}, "tokenizer": {"prefix_token_id": 3}, "model": {"tokenizer_digest": "t"},
    }  # fmt: skip
    write_run(tmp_path, {"t": {"acc": FEW}}, **known)
    write_run(
        tmp_path, {"t": {"acc": FEW}}, method="m", **{n: known.get(n, {}) | part.get(n, {}) for n in known | part}
    )
    with pytest.raises(HarnessError, match=f"{flags}( compares the documents both have)?$"):
        compared(tmp_path)
    words = flags.removesuffix("--allow-drift").removeprefix("--across").strip()
    across = tuple(words.split(",")) if words else ()
    assert compared(tmp_path, across=across, allow_drift="--allow-drift" in flags).rows


def test_nothing_is_advised_where_no_flag_helps(tmp_path: Path) -> None:
    write_run(tmp_path, {"t": {"acc": FEW}})
    write_run(tmp_path, {"t": {"acc": FEW}}, method="m", task={"version": "2.0"}, model={"quantization": "nf4"})
    with pytest.raises(HarnessError, match=r"compare runs that agree$"):
        compared(tmp_path)
