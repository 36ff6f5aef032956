"""Records that do not follow are named: one edit of each kind, by a careless hand and by one that knows the digests."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_records import write_board, write_samples

from harness.cli import main
from harness.records import aggregation, ledger, samples, whole_scores
from harness.records.record import Record, digest_of
from harness.verifying import verify

Lines = list[dict[str, Any]]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A folder with a ledger of five records (two tasks, their group, two tasks of a method) and their sample files."""
    return write_board(tmp_path / "records")


def examine(folder: Path, **settings: Any) -> verify.Report:
    return verify.examine(ledger.read(folder), folder, **settings)


def edit(folder: Path, change: Callable[[Lines], object], *, seal: bool) -> None:
    """Change the lines of the ledger; ``seal``: give each new line key and digest again, and make the chain anew."""
    path = folder / "board.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(lines)
    if seal:
        last = ""
        for line in lines:
            content = {name: value for name, value in line.items() if name not in {"key", "digest", "chain"}}
            line["key"] = Record.model_validate(content).key()
            line["digest"] = digest_of(content)
            last = line["chain"] = ledger.next_chain(last, line["digest"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def set_field(number: int, path: str, value: Any) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        part = lines[number]
        *outer, last = path.split(".")
        for name in outer:
            part = part[name]
        part[last] = value

    return change


def sample_file(folder: Path, line: dict[str, Any]) -> Path:
    return folder / str(line["samples"]["path"])


def change_samples(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Lines], None]:
    """Edit the rows of the first record's sample file and publish them under their new digest."""

    def edit_rows(lines: Lines) -> None:
        rows = list(samples.rows(sample_file(folder, lines[0])))
        change(rows)
        lines[0]["samples"] = write_samples(folder, rows) | {"rows": lines[0]["samples"]["rows"]}

    return edit_rows


def test_untouched_records_follow(board: Path) -> None:
    report = examine(board)
    assert report.findings == []
    assert report.sentence() == "5 records: 4 follow from their samples; 1 is a group that follows from its tasks"


CARELESS = {
    "value": set_field(0, "value", 0.9),
    "standard error": set_field(0, "stderr", 0.01),
    "number of documents": set_field(0, "counts.docs", 500),
    "model": set_field(0, "model.name", "huge"),
    "seed": set_field(0, "seeds.random", 7),
    "limit": set_field(0, "settings.limit", 5.0),
    "status": set_field(0, "status", "invalid"),
    "digest": set_field(0, "digest", "0" * 64),
    "key": set_field(0, "key", "0" * 16),
    "chain value": set_field(0, "chain", "0" * 64),
    "a line removed": lambda lines: lines.pop(0),
    "lines moved": lambda lines: lines.reverse(),
    "a line put in": lambda lines: lines.insert(1, {k: v for k, v in lines[3].items() if k != "chain"}),
    "a record copied": lambda lines: lines.append(dict(lines[0])),
}


@pytest.mark.parametrize("change", CARELESS.values(), ids=CARELESS)
def test_a_careless_edit_is_found(board: Path, change: Callable[[Lines], object]) -> None:
    edit(board, change, seal=False)
    report = examine(board)
    assert report.errors
    assert {finding.file for finding in report.findings} == {board / "board.jsonl"}


# What the harness would have written had the edit been true: digests, key and chain agree. Which line is told, and how.
SEALED = {
    "value": (set_field(0, "value", 0.9), 1, "value is 0.9, while its samples give 0.6"),
    "standard error": (set_field(0, "stderr", 0.01), 1, "standard error is 0.01, while its samples give"),
    "number of documents": (set_field(0, "counts.docs", 4), 1, "its sample file holds 5 documents, the record says 4"),
    "more documents than there are": (set_field(0, "counts.docs", 500), 1, "500 documents were asked of a task of 5"),
    "group's value": (set_field(2, "value", 0.9), 3, "value is 0.9, while its 2 tasks give 0.5"),
    "group's way": (set_field(2, "metric.aggregation", "mean_of_tasks"), 3, "while its 2 tasks give 0.466667"),
    "a bad task dropped": (lambda lines: lines.pop(1), 2, "records of its tasks are not here: colours_cold"),
    "model": (set_field(0, "model.name", "huge"), 1, "model.name is not that of the 2 other records of its run"),
    "quantization": (set_field(0, "model.quantization", "nf4"), 1, "quantization is nf4, in its command another"),
    "seed": (set_field(0, "seeds.random", 7), 1, "seeds are not those of its command, 0,1234,1234,1234"),
    "plugin": (set_field(3, "plugin.name", "other"), 4, "the plugin is other, in its command softly"),
    "option": (set_field(3, "method.options.steps", 1), 4, "option steps is 1, in its command 8"),
    "limit put in": (set_field(0, "settings.limit", 5.0), 1, "limit is 5.0, in its command None"),
    "bound": (set_field(0, "value", 1.5), 1, "value 1.5 is none of acc, which is from 0 to 1"),
    "answers that are no numbers": (set_field(0, "counts.not_finite", 2), 1, "2 requests have no finite score"),
    "documents": (set_field(0, "task.docs_digest", "0" * 16), 1, "the documents in its sample file are others"),
    "sample file of another task": (
        lambda lines: lines[0].update(samples=lines[1]["samples"]), 1, "its sample file holds 3 documents",
    ),
    "a record copied": (lambda lines: lines.append(dict(lines[0])), 6, "it is the record of line 1 again"),
    "another's record under one's own name": (
        lambda lines: lines.append(
            lines[3] | {"plugin": {"name": "mine"}, "method": {"name": "mine"}, "run": "mine-0", "command": ""}
        ), 6, "its samples are, byte for byte, those of softly on tiny with seed 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "line", "sentence"), SEALED.values(), ids=SEALED)
def test_an_edit_with_all_digests_made_anew_is_found(
    board: Path, change: Callable[[Lines], object], line: int, sentence: str
) -> None:
    edit(board, change, seal=True)
    report = examine(board)
    assert report.errors
    told = [finding.sentence for finding in report.findings if (finding.line, finding.severity) == (line, "error")]
    assert any(sentence in text for text in told), told
    assert report.wrong >= 1


def raise_score(rows: list[dict[str, Any]]) -> None:
    rows[1]["acc"] = 1.0


def other_answer(rows: list[dict[str, Any]]) -> None:
    rows[1].update(acc=1.0, filtered_resps=[["nan", "False"], ["-2.5", "False"]])


SAMPLE_EDITS = {
    "a score": (raise_score, "value is 0.6, while its samples give 0.8"),
    "an answer": (raise_score, "row 2: acc is 1, while the likeliest choice is 1 and the right one 0"),
    "a row dropped": (lambda rows: rows.pop(), "its sample file has 4 rows, the record says 5"),
    "a row doubled": (lambda rows: rows.append(rows[0]), "it does not hold each document once for each filter"),
    "rows moved": (lambda rows: rows.reverse(), "the documents in its sample file are others"),
    "a document": (lambda rows: rows[0].update(doc={"question": "easy"}), "row 1: its doc does not give its doc_hash"),
    "a target": (lambda rows: rows[0].update(target="1"), "row 1: its target does not give its target_hash"),
    "no number": (other_answer, "1 answers in its samples are NaN, so the task has no score, but status is ok"),
}


@pytest.mark.parametrize(("change", "sentence"), SAMPLE_EDITS.values(), ids=SAMPLE_EDITS)
def test_an_edited_sample_file_is_found_even_with_its_new_digest_in_the_record(
    board: Path, change: Callable[[list[dict[str, Any]]], object], sentence: str
) -> None:
    edit(board, change_samples(board, change), seal=True)
    told = [finding.sentence for finding in examine(board).findings if finding.severity == "error"]
    assert any(sentence in text for text in told), told


def test_a_limit_taken_out_is_found_by_the_size_of_the_task(board: Path) -> None:
    def change(lines: Lines) -> None:
        lines[0]["task"]["size"] = 200

    edit(board, change, seal=True)
    told = [finding.sentence for finding in examine(board).findings]
    assert "5 documents were asked, where 200 of 200 are due without a limit" in told


def test_a_sample_file_that_was_changed_after_the_record_was_written_is_found(board: Path) -> None:
    line = json.loads((board / "board.jsonl").read_text(encoding="utf-8").splitlines()[0])
    path = sample_file(board, line)
    content = gzip.decompress(path.read_bytes()).replace(b'"-1.5"', b'"-1.4"', 1)
    path.write_bytes(gzip.compress(content))
    [finding] = examine(board).findings
    assert finding.line == 1
    assert finding.sentence == "its sample file is not the one it was written with: the SHA-256 differs"


def test_a_sample_file_that_is_gone_or_broken_is_told(board: Path) -> None:
    lines = [json.loads(line) for line in (board / "board.jsonl").read_text(encoding="utf-8").splitlines()]
    sample_file(board, lines[0]).unlink()
    path = sample_file(board, lines[1])
    path.write_bytes(path.read_bytes()[:40])
    findings = examine(board).findings
    assert [finding.line for finding in findings] == [1, 2]
    assert "its samples are not here" in findings[0].sentence
    assert "its samples cannot be read" in findings[1].sentence


def test_samples_that_are_kept_elsewhere_are_counted_when_that_is_said(board: Path) -> None:
    for path in (board / "samples").iterdir():
        path.unlink()
    assert examine(board).errors == 4
    report = examine(board, needs_samples=False)
    assert report.errors == 0
    assert (report.no_samples, report.grouped) == (4, 1)


def test_the_same_answers_of_two_seeds_are_for_a_person_to_judge(board: Path) -> None:
    def change(lines: Lines) -> None:
        again = lines[3] | {"seeds": dict.fromkeys(("random", "numpy", "torch", "fewshot"), 1), "run": "softly-1"}
        lines.append(again | {"command": lines[3]["command"].replace("--seed 0,1234,1234,1234", "--seed 1,1,1,1")})

    edit(board, change, seal=True)
    [finding] = examine(board).findings
    assert finding.severity == "warning"
    assert "the same log-likelihoods from another run" in finding.sentence


def test_lines_cut_off_at_the_end_are_found_beside_an_earlier_copy(board: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_bytes((board / "board.jsonl").read_bytes())
    edit(board, lambda lines: lines.pop(), seal=False)
    assert examine(board).errors == 0
    [finding] = verify.removed(earlier, board / "board.jsonl")
    assert finding.line == 5
    assert "a ledger only grows" in finding.sentence
    assert main(["verify", str(board / "board.jsonl"), "--since", str(earlier)]) == 1
    assert verify.removed(board / "board.jsonl", earlier) == []  # new lines at the end are no harm


def test_records_of_an_older_form_are_told_apart_and_are_no_errors(board: Path) -> None:
    def change(lines: Lines) -> None:
        for line in lines:
            for name in ("digest", "chain"):
                del line[name]
        del lines[2]["task"]["members"], lines[2]["metric"]["aggregation"]

    edit(board, change, seal=False)
    for path in (board / "samples").iterdir():
        path.unlink()
    report = examine(board)
    assert report.errors == 0
    assert report.sentence() == (
        "5 records: 0 follow from their samples; 1 is a group that follows from its tasks; 4 have no samples here to be "
        "checked against; 5 are of an older form without digest"
    )


@pytest.mark.parametrize("name", ["ratio_of_sums", "v_measure"])
def test_an_error_by_bootstrap_is_drawn_again(board: Path, name: str) -> None:
    """The same draws of the same documents give the same number, to the last digit."""
    values = [[1.0, 0.2], [2.0, 0.1], [1.0, 0.4], [2.0, 0.9], [3.0, 0.3]]
    entry = aggregation.AGGREGATIONS[name]
    assert entry.score is not None

    def as_pairs(rows: list[dict[str, Any]]) -> None:
        for row, value in zip(rows, values, strict=True):
            del row["acc"]
            row |= {"own": value, "metrics": ["own"]}

    error = whole_scores.bootstrapped_error(entry.score, [tuple(value) for value in values])

    def claim(lines: Lines, stderr: float = error) -> None:
        change_samples(board, as_pairs)(lines) if lines[0]["metric"]["name"] == "acc" else None
        lines[0]["metric"] |= {"name": "own", "aggregation": name}
        lines[0] |= {"value": aggregation.score(values, name), "stderr": stderr}

    edit(board, claim, seal=True)
    assert not [finding for finding in examine(board).findings if finding.line == 1]
    edit(board, lambda lines: claim(lines, error / 2), seal=True)
    [told] = [finding.sentence for finding in examine(board).findings if finding.line == 1]
    assert told.startswith(f"standard error is {error / 2:.6g}, while its samples give {error:.6g}")


def test_a_score_of_a_rule_that_is_not_known_is_no_error(board: Path) -> None:
    def rename(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"own": row.pop("acc"), "metrics": ["own"]}

    def change(lines: Lines) -> None:
        change_samples(board, rename)(lines)
        lines[0]["metric"] |= {"name": "own", "aggregation": None}
        lines[0]["value"] = 17.0
        lines.pop(2)  # the group, whose score is not that of its tasks now

    edit(board, change, seal=True)
    report = examine(board)
    assert report.errors == 0
    assert (report.no_rule, report.follow) == (1, 3)


@pytest.mark.parametrize(
    ("name", "values", "score"),
    [
        ("median", [1.0, 5.0, 2.0], 2.0),
        ("perplexity", [-1.0, -3.0], math.exp(2.0)),
        ("weighted_perplexity", [[-4.0, 2], [-8.0, 2]], math.exp(3.0)),
        ("bits_per_byte", [[-4.0, 2], [-8.0, 2]], 3.0 / math.log(2)),
        ("f1", [[1, 1], [0, 1], [1, 1]], 0.8),
        ("matthews_corrcoef", [[1, 1], [0, 0]], 1.0),
    ],
)
def test_scores_over_the_whole_set_are_computed_again_as_lm_eval_does(
    name: str, values: list[Any], score: float
) -> None:
    assert aggregation.score(values, name) == pytest.approx(score)


def test_the_command_prints_each_row_and_a_summary(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(board)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("5 records: 4 follow from their samples")
    edit(board, set_field(0, "value", 0.9), seal=True)
    assert main(["verify", str(board), "--format", "json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["wrong"] == 2  # the record, and the group it is in
    assert printed["findings"][0]["line"] == 1
    assert main(["verify", str(board)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"error: {board}/board.jsonl, line 1 (key ")
    assert lines[0].endswith("value is 0.9, while its samples give 0.6")


def test_text_from_records_cannot_steer_the_terminal(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(board, set_field(3, "plugin.name", "\x1b]0;owned\x07[red]\u202e"), seal=True)
    assert main(["verify", str(board)]) == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(capsys.readouterr().out)


def test_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "no records in" in capsys.readouterr().err
