"""Find critical tokens by rollouts: the token of a wrong solution after which no continuation comes out right."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.methods.options import check_least
from harness.names import printable
from harness.progress import bar, say
from harness_critical_tokens.judging import Judge, gold_of
from harness_critical_tokens.pairs_file import Pair, PairsFile, counted, read_pairs
from harness_critical_tokens.selection import upper_bound

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.models.causal import CausalLM
    from harness_critical_tokens.walking import Row, Solution, Walk

ROLLOUTS_FILE, CRITICAL_FILE = "rollouts.jsonl", "critical_tokens.jsonl"
# Solutions that are walked along at the same time.
PORTION = 8
# Below this rate from the bare question a token without right rollouts says little; above this share of cut ones, too.
LEAST_RATE, MOST_UNFINISHED = 0.25, 0.1


@dataclass(frozen=True)
class Find:
    """Find critical tokens by sampling rollouts from every prefix of wrong solutions (Lin et al., 2025, arXiv 2411.19943).

    The model is left as it is. The work folder holds rollouts.jsonl (right rollouts from each prefix), critical_tokens.jsonl,
    report.html and report.json afterwards.

    Options:
        pairs_file: .jsonl with prompt, chosen (right) and rejected (wrong), and the right answer as answer; without it the one
            that chosen gives.
        mode: full makes all rollouts, each counted at all prefixes that it passes; quick walks from the end back to where
            5 % come out right: the same critical token, no fallback, no rates below.
        rollouts: from each prefix (the paper's N); the rule asks for less than 5 % of them.
        temperature: of rollouts; 0 takes the likeliest token, one rollout from each prefix.
        top_p: draw from the fewest tokens that have so much of the probability.
        max_new_tokens: that a rollout may have beyond the end of its solution.
        criterion: zero_run, the first token with no right rollout after which no prefix reaches 5 % again (the paper's); or
            drop_test, the token at which the rate falls most, significantly at 0.1 %.
        verifier: number (GSM8K, arithmetic) or latex (MATH).
        replacement: also replace each critical token by others of the model's and roll out from there, for Pass@k.
        pairs: use the first so many pairs of the file; by default all.
        keep_texts: keep the texts of all rollouts in rollouts.jsonl.
        chat: put prompts into the tokenizer's chat template.
    """

    name: ClassVar[str] = "find"
    leaves_model_unchanged: ClassVar[bool] = True

    pairs_file: Path
    mode: Literal["full", "quick"] = "full"
    rollouts: int = 64
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 256
    criterion: Literal["zero_run", "drop_test"] = "zero_run"
    verifier: Literal["number", "latex"] = "number"
    replacement: bool = True
    pairs: int | None = None
    keep_texts: bool = False
    chat: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        check_least(self, rollouts=1, max_new_tokens=1, pairs=1)
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature is {self.temperature} and top_p {self.top_p}; the first has to be 0 or more, the second above 0 "
                "and at most 1"
            )
        if self.mode == "quick" and self.criterion == "drop_test":
            raise ValueError(
                "mode=quick makes no rates before the last run, which criterion=drop_test compares; use mode=full"
            )

    def fingerprint(self) -> str:
        """Read the pairs, and return their digest.

        Raises:
            HarnessError: they cannot be used.
        """
        return hashlib.sha256(self._file.digest.encode()).hexdigest()

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Roll out from the prefixes of all rejected solutions, and return the LM as it is.

        Args:
            lm: a ``CausalLM``.
            seed: of the random streams of all rollouts.
            workdir: holds the artefacts afterwards; when it does already, nothing is done.

        Raises:
            HarnessError: the LM has no model, or no solution can be walked along.
        """
        from harness.models.causal import CausalLM

        if not isinstance(lm, CausalLM):
            raise HarnessError(f"method '{self.name}' needs a model that generates, which {type(lm).__name__} is not")
        if not (workdir / "report.json").is_file():
            self._find(lm, self._walk(seed), workdir)
        return lm

    @cached_property
    def _file(self) -> PairsFile:
        return read_pairs(self.pairs_file)

    def _walk(self, seed: int) -> Walk:
        from harness.methods.rollouts import Drawing
        from harness_critical_tokens.verify import STOPS
        from harness_critical_tokens.walking import Walk

        rollouts = self.rollouts if self.temperature else 1
        if rollouts < self.rollouts:
            say("temperature=0 has one rollout from each prefix: that none is right means that this one path failed")
        drawing = Drawing(
            seed,
            temperature=self.temperature,
            top_p=self.top_p,
            most_tokens=self.max_new_tokens,
            until=STOPS,
        )
        return Walk(rollouts, drawing, self.mode, self.criterion, self.replacement, self.keep_texts)

    def _find(self, lm: CausalLM, how: Walk, workdir: Path) -> None:
        from harness_critical_tokens.walking import walk

        solutions, dropped = self._solutions(lm)
        started = time.perf_counter()
        rows: list[Row] = []
        with bar(len(solutions), "Rolling out", unit="solution") as progress:
            for start in range(0, len(solutions), PORTION):
                portion = solutions[start : start + PORTION]
                rows += walk(lm, portion, how)
                progress.update(len(portion))
        seconds = time.perf_counter() - started
        report = self._report(rows, how, dropped, seconds)
        critical = critical_rows(lm.tokenizer, rows)
        write_atomic(workdir / ROLLOUTS_FILE, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_atomic(workdir / CRITICAL_FILE, (json.dumps(row, ensure_ascii=False) + "\n" for row in critical))
        write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
        self._keep_page(lm, {solution.pair for solution in solutions}, how.drawing.seed, workdir)
        _tell(report)

    def _keep_page(self, lm: CausalLM, used: Set[int], seed: int, workdir: Path) -> None:
        """Keep the solutions that were walked along, and make ``report.html`` of them and their rollouts."""
        from harness_critical_tokens.encoding import encode
        from harness_critical_tokens.report.page import write_page
        from harness_critical_tokens.responses import made_by, write_responses

        responses = [
            (pair, "rejected", encode(lm, pair.prompt, pair.rejected, is_chat=self.chat))
            for pair in self._file.pairs
            if pair.number in used
        ]
        write_responses(workdir, responses, made_by=made_by(self, lm, seed=seed))
        write_page(workdir)

    def _solutions(self, lm: CausalLM) -> tuple[list[Solution], Counter[str]]:
        """Return the rejected solutions that can be walked along, and how many cannot for which reason."""
        found: list[Solution] = []
        dropped = Counter(self._file.dropped)
        for pair in self._file.pairs[: self.pairs]:
            solution = self._solution(lm, pair)
            if isinstance(solution, str):
                dropped[solution] += 1
            else:
                found.append(solution)
        if not found:
            raise HarnessError(f"no pair of '{printable(self.pairs_file)}' can be walked along: {counted(dropped)}")
        return found, dropped

    def _solution(self, lm: CausalLM, pair: Pair) -> Solution | str:
        """Return the rejected solution of a pair, or why there is none to walk along."""
        from harness.methods.rollouts import Trajectory
        from harness_critical_tokens.encoding import encode
        from harness_critical_tokens.walking import Solution

        gold = gold_of(pair.row.get("answer"), pair.chosen, self.verifier)
        if gold is None:
            return "no right answer"
        judge = Judge(lm.tokenizer, gold, self.verifier)
        encoded = encode(lm, pair.prompt, pair.rejected, is_chat=self.chat)
        if len(encoded.token_ids) >= lm.max_length:
            return "more tokens than the model's context"
        if judge(encoded.response_ids, is_cut=False).is_right:
            return "a rejected response that is right"
        return Solution(
            pair.number, Trajectory(tuple(encoded.token_ids), encoded.response_start, f"pair {pair.number}"), judge
        )

    def _report(self, rows: Sequence[Row], how: Walk, dropped: Counter[str], seconds: float) -> dict[str, Any]:
        judged, n = sum(row["judged"] for row in rows), how.rollouts
        prefixes = sum(len(row["ids"]) for row in rows)  # the bare question in place of the whole solution
        walked = sum(row["judged"] // n for row in rows)
        with_critical = [row for row in rows if row["critical"] is not None]
        replaced = [row["replacement"] for row in rows if "replacement" in row]
        return {
            "pairs": {"read": self._file.read, "used": len(rows), "dropped": dict(dropped)},
            "rollouts": n,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "rate_from_question": sum(row["bare"] for row in rows) / (n * len(rows)),
            "critical": len(with_critical),
            "fallback": sum(row["fallback"] is not None for row in rows),
            "rate_may_still_be": upper_bound(n),
            "mean_place": statistics.fmean(row["critical"] / len(row["ids"]) for row in with_critical)
            if with_critical
            else None,
            "pass_at": {
                side: {k: statistics.fmean(each[side][k] for each in replaced) for k in replaced[0][side]}
                for side in ("pass_at", "kept_pass_at")
            }
            if replaced
            else None,
            "rollouts_made": sum(row["made"] for row in rows),
            "rollouts_passed_on": judged - sum(row["made"] for row in rows),
            "rollouts_saved_by_the_end": (prefixes - walked) * n,
            "new_tokens": sum(row["new_tokens"] for row in rows),
            "unfinished": sum(row["unfinished"] for row in rows) / judged,
            "no_answer": sum(row["no_answer"] for row in rows) / judged,
            "seconds": round(seconds, 1),
        }


def critical_rows(tokenizer: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what there is to say of the critical token of each solution, those without one too.

    Args:
        tokenizer: spells the token.
        rows: of ``rollouts.jsonl``.
    """
    found = []
    for row in rows:
        token, n = row["critical"], row["n"]
        known: dict[str, Any] = {"pair": row["pair"], "critical": token, "fallback": row["fallback"], "n": n}
        if token is not None:
            before = row["counts"][token - 1] if token else row["bare"]
            known |= {
                "id": row["ids"][token],
                "text": tokenizer.decode([row["ids"][token]], clean_up_tokenization_spaces=False),
                "right_before": before,
                "right_with": row["counts"][token],
                "rate_may_still_be": upper_bound(n),
                "right_with_another": row.get("replacement", {}).get("right"),
            }
        found.append(known)
    return found


def _tell(report: dict[str, Any]) -> None:
    used, rate = report["pairs"]["used"], report["rate_from_question"]
    if report["pairs"]["dropped"]:
        say(f"pairs left out: {counted(report['pairs']['dropped'])}")
    say(
        f"{report['critical']} of {used} solutions have a critical token; with none of {report['rollouts']} rollouts right, "
        f"the rate may still be {report['rate_may_still_be']:.1%}"
    )
    if rate < LEAST_RATE:
        say(
            f"this model solves {rate:.0%} of the questions of these pairs, and where it solves less than {LEAST_RATE:.0%} "
            "critical tokens say little: every prefix looks hopeless"
        )
    if report["unfinished"] > MOST_UNFINISHED:
        say(
            f"{report['unfinished']:.0%} of the rollouts were cut before they gave an answer, which makes the rates too low; "
            "give a larger max_new_tokens"
        )
