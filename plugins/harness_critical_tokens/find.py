"""Find critical tokens by rollouts: the token of a wrong solution after which no continuation comes out right."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.json_lines import write_json_lines
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
# Solutions that are walked along at the same time, and kept together when they are done.
PORTION = 8
TOO_LONG = "more tokens than the model's context"
# Below this rate from the bare question a token without right rollouts says little; above this share of cut ones, too.
LEAST_RATE, MOST_UNFINISHED = 0.25, 0.1


@dataclass(frozen=True)
class Find:
    """Find critical tokens by sampling rollouts from every prefix of wrong solutions (Lin et al., 2025, arXiv 2411.19943).

    The model is left as it is. The work folder holds rollouts.jsonl (right rollouts from each prefix), critical_tokens.jsonl,
    report.html and report.json afterwards. The same command goes on after a kill, from the last 8 solutions that were done.

    Options:
        pairs_file: .jsonl with prompt, chosen (right) and rejected (wrong), and the right answer as answer; without it the one
            that chosen gives.
        mode: full makes all rollouts, each counted at all prefixes that it passes; quick walks from the end back to where
            5 % come out right: the same critical token, no fallback, no rates below, and that last count is a bound.
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
            self._find(lm, self._walk(seed), workdir)  # writes it last
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
        from harness_critical_tokens.going_on import parts_of, portions

        solutions, left_out = self._solutions(lm)
        texts = [[PORTION], *([one.pair, one.trajectory.token_ids, one.judge.gold] for one in solutions)]
        parts = parts_of(self, lm, texts, seed=how.drawing.seed, workdir=workdir)
        rows: list[Row] = []
        with bar(len(solutions), "Rolling out", unit="solution") as progress:
            for number, portion in portions(solutions, PORTION):
                rows += parts.part(number, partial(_walked, lm, portion, how))["rows"]
                progress.update(len(portion))
        report = self._report(rows, how, left_out, sum(part["seconds"] for part in parts.done))
        write_json_lines(workdir / ROLLOUTS_FILE, rows)
        write_json_lines(workdir / CRITICAL_FILE, critical_rows(lm.tokenizer, rows))
        self._keep_page(lm, {solution.pair for solution in solutions}, how.drawing.seed, workdir)
        write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
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

    def _solutions(self, lm: CausalLM) -> tuple[list[Solution], dict[str, list[int]]]:
        """Return the rejected solutions that can be walked along, and by reason the numbers of the pairs that cannot."""
        from harness.methods.rollouts import room_for

        found: dict[int, Solution] = {}
        left_out: dict[str, list[int]] = {}
        for pair in self._file.pairs[: self.pairs]:
            solution = self._solution(lm, pair)
            if isinstance(solution, str):
                left_out.setdefault(solution, []).append(pair.number)
            else:
                found[pair.number] = solution
        # A model whose texts may share keys up to some length only has less room than its context.
        room = room_for(lm, [solution.trajectory.token_ids for solution in found.values()])
        for number in [number for number, one in found.items() if len(one.trajectory.token_ids) >= room]:
            del found[number]
            left_out.setdefault(TOO_LONG, []).append(number)
        if not found:
            dropped = self._dropped(left_out)
            raise HarnessError(f"no pair of '{printable(self.pairs_file)}' can be walked along: {counted(dropped)}")
        return list(found.values()), left_out

    def _dropped(self, left_out: Mapping[str, Sequence[int]]) -> Counter[str]:
        """Return how many pairs are not used, by reason."""
        return Counter(self._file.dropped) + Counter({reason: len(numbers) for reason, numbers in left_out.items()})

    def _solution(self, lm: CausalLM, pair: Pair) -> Solution | str:
        """Return the rejected solution of a pair, or why there is none to walk along."""
        from harness.methods.rollouts import Trajectory
        from harness_critical_tokens.encoding import encode
        from harness_critical_tokens.walking import Solution

        gold = gold_of(pair.row.get("answer"), pair.chosen, self.verifier)
        if gold is None:
            return "no right answer"
        encoded = encode(lm, pair.prompt, pair.rejected, is_chat=self.chat)
        if len(encoded.token_ids) >= lm.max_length:
            return TOO_LONG
        if not encoded.prompt_ids:
            return "no token before the response"
        judge = Judge(lm.tokenizer, gold, self.verifier, before=encoded.prompt_ids)
        if judge(encoded.response_ids, is_cut=False).is_right:
            return "a rejected response that is right"
        return Solution(
            pair.number, Trajectory(tuple(encoded.token_ids), encoded.response_start, f"pair {pair.number}"), judge
        )

    def _report(
        self, rows: Sequence[Row], how: Walk, left_out: Mapping[str, Sequence[int]], seconds: float
    ) -> dict[str, Any]:
        judged, n = sum(row["judged"] for row in rows), how.rollouts
        prefixes = sum(len(row["ids"]) for row in rows)  # the bare question in place of the whole solution
        counted_at, bounds = judged // n, sum(row["settled"] is not None for row in rows)
        made, beyond = sum(row["made"] for row in rows), sum(row["uncounted"]["rollouts"] for row in rows)
        with_critical = [row for row in rows if row["critical"] is not None]
        replaced = [row["replacement"] for row in rows if "replacement" in row]
        return {
            "pairs": {
                "read": self._file.read,
                "used": len(rows),
                "dropped": dict(self._dropped(left_out)),
                "left_out": left_out,
            },
            "mode": self.mode,
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
            # A bound says that 5 % or more come out right, and its rollouts are made, but not counted.
            "prefixes": {"counted": counted_at, "bounds": bounds, "not_asked": prefixes - counted_at - bounds},
            "rollouts_made": made + beyond,
            "rollouts_uncounted": beyond,
            "rollouts_passed_on": judged - made,
            "rollouts_saved_by_the_end": (prefixes - counted_at) * n - beyond,
            "new_tokens": sum(row["new_tokens"] + row["uncounted"]["new_tokens"] for row in rows),
            "unfinished": sum(row["unfinished"] for row in rows) / judged,
            "no_answer": sum(row["no_answer"] for row in rows) / judged,
            "seconds": round(seconds, 1),
        }


def _walked(lm: CausalLM, solutions: Sequence[Solution], how: Walk) -> dict[str, Any]:
    """Return the rows of some solutions, and the seconds that they took."""
    from harness_critical_tokens.walking import walk

    started = time.perf_counter()
    return {"rows": walk(lm, solutions, how), "seconds": time.perf_counter() - started}


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
                **({"right_before_is_a_bound": True} if row["settled"] == token - 1 else {}),
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
