"""Logs that inspect wrote (``make_logs.py``), read without it: scores, documents, pairs, and logs that are none."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from small_runs import Command

from harness.foreign import inspect_rows
from harness.records import ledger, samples

pytest_plugins = ["small_runs"]
MADE = Path(__file__).parent / "made" / "inspect"


def _scores(name: str) -> dict[tuple[str, str], Any]:
    reading = ledger.read(MADE / name)
    assert not reading.problems
    return {(record.metric.name, record.metric.filter): record for record in reading.records}


def _column(name: str, scorer: str) -> dict[Any, float]:
    """Return the value of each document as the log has it, read here by hand."""
    rows = [row for row in samples.rows(next((MADE / name).iterdir())) if row["filter"] == scorer]
    return {row["doc"]["id"]: row["accuracy"] for row in rows if "accuracy" in row}


def _json(cli: Command, *words: object) -> Any:
    done = cli("compare", *words, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_log_gives_the_scores_that_inspect_computed() -> None:
    record = _scores("weak")["accuracy", "match"]
    assert (record.model.name, record.task.name, record.task.version) == ("mockllm/weak", "sums", "2")
    assert record.counts.docs == 12 and record.metric.higher_is_better is True
    values = list(_column("weak", "match").values())
    assert record.value == pytest.approx(sum(values) / 12)
    assert record.stderr == pytest.approx(stats.sem(values))


def test_what_a_log_does_not_state_is_unknown() -> None:
    record = _scores("weak")["accuracy", "match"]
    assert record.foreign is not None and (record.foreign.tool, record.foreign.version) == ("inspect_ai", "0.3.285")
    assert {"model.digest", "model.dtype", "task.prompts_digest", "seeds", "tokenizer"} <= set(record.foreign.unknown)
    assert record.model.digest == "unknown" and record.seeds.random is None
    assert record.states("task.docs_digest") and not record.states("seeds.fewshot")


def test_letters_count_as_inspect_counts_them() -> None:
    assert [inspect_rows.worth(value) for value in ("C", "P", "I", "N")] == [1.0, 0.5, 0.0, 0.0]
    assert [inspect_rows.worth(value) for value in (True, 0.25, "0.75", "yes")] == [1.0, 0.25, 0.75, 1.0]
    assert [inspect_rows.worth(value) for value in ("maybe", None, float("nan"), [1])] == [None] * 4
    assert 0.5 in _column("weak", "graded").values()
    assert _scores("weak")["accuracy", "graded"].metric.aggregation == "mean"


def test_a_scorer_of_several_values_is_several_scores_without_direction() -> None:
    scores = _scores("weak")
    length, digits = scores["mean", "length"], scores["mean", "digits"]
    assert length.metric.higher_is_better is None and length.metric.aggregation == digits.metric.aggregation == "mean"
    assert length.stderr is not None and digits.stderr is None


def test_epochs_are_one_value_a_document_by_each_reducer() -> None:
    scores = _scores("epochs")
    assert {chosen for _, chosen in scores} >= {"match", "match/max"}
    mean, best = scores["accuracy", "match"], scores["accuracy", "match/max"]
    assert mean.counts.docs == best.counts.docs == 4 and best.value >= mean.value
    assert mean.metric.aggregation == best.metric.aggregation == "mean"
    assert mean.notes == ["each of the 4 documents was asked 3 times, and counts once"]


def test_samples_that_ended_with_an_error_are_in_no_score() -> None:
    record = _scores("errors")["accuracy", "match"]
    assert (record.counts.docs, record.counts.scored_docs) == (12, 10)
    assert record.notes == ["2 of 12 samples ended with an error and are in no score"]


def test_a_json_log_reads_as_a_zip_does() -> None:
    record = _scores("json")["accuracy", "match"]
    assert (record.counts.docs, record.settings.limit, record.task.size) == (3, 3.0, None)
    assert record.samples is not None and len(list(samples.rows(MADE / "json" / "sums.json"))) == record.samples.rows


def test_a_pair_is_tested_as_by_hand(cli: Command) -> None:
    found = _json(cli, MADE / "weak", MADE / "strong", "--documents", 0)
    rows = {(row["metric"], row["filter"]): row for row in found["comparisons"]}
    first, second = _column("weak", "match"), _column("strong", "match")
    up = sum(second[one] > first[one] for one in first)
    down = sum(second[one] < first[one] for one in first)
    row = rows["accuracy", "match"]
    assert (row["up"], row["down"], row["documents"]) == (up, down, 12)
    fewer, flips = min(up, down), up + down
    assert row["p"] == pytest.approx(
        min(1, 2 * stats.binom.cdf(fewer, flips, 0.5) - stats.binom.pmf(fewer, flips, 0.5))
    )
    graded = rows["accuracy", "graded"]
    a, b = _column("weak", "graded"), _column("strong", "graded")
    assert graded["difference"] == pytest.approx(sum(b.values()) / 12 - sum(a.values()) / 12)
    by_t = stats.ttest_rel([b[one] for one in a], list(a.values()))
    assert graded["p"] == pytest.approx(by_t.pvalue, abs=0.1) and graded["is_paired"]
    assert "mockllm/weak" in str(found["notes"]) and "not stated" in str(found["notes"])


def test_the_same_ids_with_other_documents_are_refused(cli: Command) -> None:
    done = cli("compare", MADE / "weak", MADE / "moved")
    assert done.code == 2
    assert "12 and 12, of which 10 agree, and 2 are other ones under the same number" in done.sentence
    rows = _json(cli, MADE / "weak", MADE / "moved", "--allow-drift", "--documents", 0)["comparisons"]
    assert {row["documents"] for row in rows} == {10}


def test_documents_without_a_score_are_not_passed_over_in_silence(cli: Command) -> None:
    done = cli("compare", MADE / "strong", MADE / "errors")
    assert done.code == 2 and "of which 10 agree (documents without accuracy do not count)" in done.sentence


def test_a_shorter_log_is_compared_when_asked_for(cli: Command) -> None:
    done = cli("compare", MADE / "strong", MADE / "epochs")
    assert done.code == 2 and "limit is none in" in done.sentence and "--allow-drift" in done.sentence


def test_a_board_of_logs_has_models_as_rows_with_ranks(cli: Command, tmp_path: Path) -> None:
    for name in ("weak", "strong"):
        shutil.copy(MADE / name / "sums.eval", tmp_path / f"{name}.eval")
    done = cli("leaderboard", tmp_path)
    assert done.code == 0, done.err
    assert "| model | place | sums, accuracy (match) ↑ |" in done.out and "| mockllm/weak | =1 |" in done.out
    tables = cli("leaderboard", tmp_path, "--task", "all")
    assert "| mockllm/weak | inspect_ai | 1 |" in tables.out and ", rank =1" in tables.out
    assert "rank: 1 + how many rows" in tables.out and "unknown" not in tables.out
    page = tmp_path / "board.html"
    assert cli("leaderboard", tmp_path, "-o", page).code == 0 and "mockllm/weak" in page.read_text(encoding="utf-8")


def test_a_copied_log_counts_once_and_another_run_of_it_as_a_trial(tmp_path: Path) -> None:
    from harness.board.board import build_reading

    for name in ("one.eval", "copy.eval"):
        shutil.copy(MADE / "weak" / "sums.eval", tmp_path / name)
    [row] = build_reading(ledger.read(tmp_path)).tables[0].rows
    assert len(row.sources) == 1
    shutil.copy(MADE / "strong" / "sums.eval", tmp_path / "strong.eval")
    shutil.copy(MADE / "errors" / "sums.eval", tmp_path / "strong-again.eval")
    rows = build_reading(ledger.read(tmp_path)).tables[0].rows
    assert {(row.first.model.name, len(row.sources)) for row in rows} == {("mockllm/weak", 1), ("mockllm/strong", 2)}


def test_nothing_foreign_is_published(cli: Command, tmp_path: Path) -> None:
    done = cli("publish", MADE / "weak", "--to", tmp_path / "board")
    assert done.code == 2 and "was measured by inspect_ai 0.3.285, not by this harness" in done.sentence
    assert not (tmp_path / "board").exists()


def test_verify_says_what_it_cannot_check(cli: Command) -> None:
    done = cli("verify", MADE / "weak")
    assert done.code == 0
    assert "4 follow from their samples" in done.out and "4 were measured by other tools" in done.out


def test_show_lists_what_is_not_stated_and_shows_documents(cli: Command) -> None:
    done = cli("show", MADE / "weak")
    assert done.code == 0 and "inspect_ai 0.3.285" in done.out and "not stated" in done.out
    assert "untouched model" not in done.out and "--with_baseline" not in done.out, "a flag of ours, for runs of ours"
    done = cli("show", MADE / "weak", "--task", "sums", "--limit", 1)
    assert done.code == 0 and "What is 0 + 1?" in done.out


def _rewritten(target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write the JSON log with a change."""
    content = json.loads((MADE / "json" / "sums.json").read_text(encoding="utf-8"))
    change(content)
    target.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 3}, "log of version 3, where this harness reads version 2; upgrade"),
        ({"version": 1}, "log of version 1"),
        ({"status": "error"}, "status is error, not success"),
        ({"invalidated": True}, "was marked invalid"),
        ({"results": None}, "has no score"),
        ({"eval": None}, "nothing under 'eval'"),
    ],
)
def test_a_log_that_is_no_result_says_why(changes: dict[str, Any], words: str, tmp_path: Path, cli: Command) -> None:
    log = _rewritten(tmp_path / "log.json", lambda content: content.update(changes))
    reading = ledger.read(tmp_path)
    assert not reading.records and len(reading.problems) == 1 and words in reading.problems[0]
    assert cli("compare", log, MADE / "weak").code == 2


def test_a_log_that_is_cut_says_so(tmp_path: Path) -> None:
    whole = (MADE / "weak" / "sums.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nothing.eval").write_bytes(b"")
    text = (MADE / "json" / "sums.json").read_bytes()
    (tmp_path / "cut.json").write_bytes(text[: len(text) // 2])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (tmp_path / "damaged.eval").write_bytes(damaged)
    problems = ledger.read(tmp_path).problems
    assert len(problems) == 4
    for name, words in (
        ("cut.eval", "was cut"),
        ("cut.json", "may be cut"),
        ("damaged.eval", "damaged"),
        ("nothing", "cut"),
    ):
        assert any(name in problem and words in problem for problem in problems), problems


def test_an_empty_log_has_no_score() -> None:
    [problem] = ledger.read(MADE / "empty").problems
    assert "has no score" in problem


def test_a_log_of_an_older_inspect_is_read_without_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 0.3.1xx logs were compressed as any zip file, which needs no package."""
    content = json.loads((MADE / "json" / "sums.json").read_text(encoding="utf-8"))
    with zipfile.ZipFile(tmp_path / "old.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in content.pop("samples"):
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps(content))
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    record = ledger.read(tmp_path).records[0]
    assert record.counts.docs == 3 and record.metric.aggregation == "mean"
    [problem] = ledger.read(MADE / "weak").problems
    assert "pip install zstandard" in problem


def test_names_of_samples_and_odd_documents_are_kept_apart(tmp_path: Path) -> None:
    def named(content: dict[str, Any]) -> None:
        for number, sample in enumerate(content["samples"]):
            sample["id"] = f"set:{number}"
            sample["input"] = [{"id": f"random-{number}", "role": "user", "content": "x" * 2_000_000}]
        for reduction in content["reductions"]:
            for number, sample in enumerate(reduction["samples"]):
                sample["sample_id"] = f"set:{number}"
        content["eval"]["dataset"]["sample_ids"] = ["set:2", "set:1", "set:0"]

    log = _rewritten(tmp_path / "log.json", named)
    rows = [row for row in samples.rows(log) if row["filter"] == "match"]
    assert [samples.document_key(row).partition(":")[0] for row in rows] == ["set_2", "set_1", "set_0"]
    assert len({row["doc_hash"] for row in rows}) == 3 and not ledger.read(tmp_path).problems


def test_no_value_of_another_type_ends_in_a_traceback(tmp_path: Path) -> None:
    """Each field in turn is of another type: what is read is a score or a sentence, and never an error of ours."""
    content = json.loads((MADE / "json" / "sums.json").read_text(encoding="utf-8"))
    places = [("results", "scores", 0, "metrics", "accuracy", "value"), ("reductions", 0, "samples", 0, "value"),
              ("samples", 0, "id"), ("samples", 0, "scores"), ("eval", "config"), ("eval", "dataset"), ("plan", "steps"),
              ("results", "scores"), ("stats",), ("eval", "model"), ("samples", 0, "messages", 0, "content")]  # fmt: skip
    for place in places:
        for value in (None, [], {}, "x", -1, 10**400, [None], {"a": None}):
            changed = json.loads(json.dumps(content))
            part = changed
            for name in place[:-1]:
                part = part[name]
            part[place[-1]] = value
            (tmp_path / "log.json").write_text(json.dumps(changed), encoding="utf-8")
            reading = ledger.read(tmp_path)
            assert reading.records or reading.problems, (place, value)


def test_two_logs_give_a_page_of_their_documents(cli: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = cli("compare", MADE / "weak", MADE / "strong", "--html", page)
    assert done.code == 0 and page.stat().st_size > 10_000, done.err
