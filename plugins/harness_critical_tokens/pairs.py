"""Pairs of a right and a wrong solution, of a model's own samples on any file of questions."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.json_lines import numbered_json_lines, write_json_lines
from harness.methods.options import check_least
from harness.names import printable
from harness.progress import bar, say
from harness_critical_tokens.choosing import Chosen, choose
from harness_critical_tokens.find import LEAST_RATE, MOST_UNFINISHED, TOO_LONG
from harness_critical_tokens.going_on import parts_of, portions
from harness_critical_tokens.judging import Judge, Verdict, gold_of
from harness_critical_tokens.verify import STOPS

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.methods.rollouts import Drawing
    from harness.models.causal import CausalLM

FILES = ("trajectories.jsonl", "pairs.jsonl", "right.jsonl", "wrong.jsonl")
# Questions that are answered at the same time, and kept together when they are done.
PORTION = 16


@dataclass(frozen=True)
class Question:
    """A question under its number in the file, as a prompt, and its right answer."""

    number: int
    prompt: str
    gold: str


Asked = tuple[Question, list[int]]


@dataclass(frozen=True)
class MakePairs:
    """Sample solutions of questions, verify them, and make pairs of the most frequent right and wrong answers.

    After Lin et al., 2025 (arXiv 2411.19943). The model is left as it is. The work folder holds trajectories.jsonl (all
    solutions, with answer and verdict), pairs.jsonl (for find, score and cdpo), right.jsonl and wrong.jsonl (prompt and answer,
    what the models of right and of wrong solutions are trained on in the paper) and report.json afterwards. The same command
    goes on after a kill, from the last 16 questions that were done.

    Options:
        questions_file: .jsonl with question and answer, the right one (of GSM8K's answers the number after ####).
        prompt: what stands before a solution; {question} is the question. Worked examples may stand before it.
        samples: solutions for each question.
        temperature: at which solutions are drawn; the paper tunes it so that some 10 of 64 are wrong.
        top_p: draw from the fewest tokens that have so much of the probability.
        max_new_tokens: of a solution.
        verifier: number (GSM8K, arithmetic) or latex (MATH).
        questions: use the first so many questions of the file; by default all.
        chat: put prompts into the tokenizer's chat template.
    """

    name: ClassVar[str] = "pairs"
    leaves_model_unchanged: ClassVar[bool] = True

    questions_file: Path
    prompt: str = "Question: {question}\nAnswer:"
    samples: int = 64
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 256
    verifier: Literal["number", "latex"] = "number"
    questions: int | None = None
    chat: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        check_least(self, samples=2, max_new_tokens=1, questions=1)
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature is {self.temperature} and top_p {self.top_p}; the first has to be above 0, or all solutions of a "
                "question are the same, the second above 0 and at most 1"
            )
        if "{question}" not in self.prompt:
            raise ValueError("prompt has no {question}; it says where the question stands")

    def fingerprint(self) -> str:
        """Read the questions, and return their digest.

        Raises:
            HarnessError: they cannot be used.
        """
        content = json.dumps([[question.prompt, question.gold] for question in self._questions])
        return hashlib.sha256(content.encode()).hexdigest()

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Sample solutions and make pairs of them, and return the LM as it is.

        Args:
            lm: a ``CausalLM``.
            seed: of the random streams of all solutions, and of the choice between those with the same answer.
            workdir: holds the artefacts afterwards; when it does already, nothing is done.

        Raises:
            HarnessError: the LM has no model, or no question leaves room for a solution.
        """
        from harness.models.causal import CausalLM

        if not isinstance(lm, CausalLM):
            raise HarnessError(f"method '{self.name}' needs a model that generates, which {type(lm).__name__} is not")
        if not (workdir / "report.json").is_file():
            self._make(lm, seed, workdir)
        return lm

    @cached_property
    def _questions(self) -> list[Question]:
        rows = numbered_json_lines(self.questions_file, {"question": str, "answer": (str, int, float)})
        found = []
        for number, (line, row) in enumerate(list(rows.items())[: self.questions]):
            gold = gold_of(row["answer"], "", self.verifier)
            where = f"line {line} of '{printable(self.questions_file)}'"
            if not row["question"].strip():
                raise HarnessError(f"{where} has an empty question; leave it out")
            if gold is None:
                raise HarnessError(
                    f"{where} has no answer that verifier={self.verifier} reads; correct it or leave it out"
                )
            # A blank at the end belongs to a solution, which begins with its own.
            prompt = self.prompt.replace("{question}", row["question"].strip()).rstrip()
            found.append(Question(number, prompt, gold))
        return found

    def _make(self, lm: CausalLM, seed: int, workdir: Path) -> None:
        from harness.methods.rollouts import Drawing

        drawing = Drawing(
            seed, temperature=self.temperature, top_p=self.top_p, most_tokens=self.max_new_tokens, until=STOPS
        )
        asked, left_out = self._encoded(lm)
        texts = [[PORTION], *([q.number, q.prompt, prompt_ids, q.gold] for q, prompt_ids in asked)]
        parts = parts_of(self, lm, texts, seed=seed, workdir=workdir)
        made: list[tuple[Question, list[Verdict]]] = []
        with bar(len(asked), "Solving", unit="question") as progress:
            for number, portion in portions(asked, PORTION):
                part = parts.part(number, partial(self._solved, lm, portion, drawing))
                solved = ([Verdict(*row) for row in rows] for rows in part["verdicts"])
                made += [(q, verdicts) for (q, _), verdicts in zip(portion, solved, strict=True)]
                progress.update(len(portion))
        chosen = [choose(verdicts, rule=self.verifier, seed=seed, question=q.number) for q, verdicts in made]
        report = self._report(made, chosen, left_out, sum(part["seconds"] for part in parts.done))
        rows = [
            [row for q, verdicts in made for row in _trajectories(q, verdicts)],
            [
                _pair(q, v, c.right, c.wrong)
                for (q, v), c in zip(made, chosen, strict=True)
                if None not in (c.right, c.wrong)
            ],
            [_solution(q, v[c.right]) for (q, v), c in zip(made, chosen, strict=True) if c.right is not None],
            [_solution(q, v[number]) for (q, v), c in zip(made, chosen, strict=True) for number in c.negatives],
        ]
        for name, lines in zip(FILES, rows, strict=True):
            write_json_lines(workdir / name, lines)
        write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
        _tell(report)

    def _encoded(self, lm: CausalLM) -> tuple[list[Asked], list[int]]:
        """Return the questions that leave room for a solution, each with the ids of its prompt, and the numbers of the others."""
        from harness.methods.rollouts import room_for
        from harness_critical_tokens.encoding import encode

        asked = [(q, encode(lm, q.prompt, "", is_chat=self.chat, ends=False).token_ids) for q in self._questions]
        short = [(q, prompt_ids) for q, prompt_ids in asked if len(prompt_ids) < lm.max_length]
        room = room_for(lm, [prompt_ids for _, prompt_ids in short])
        fits = [(q, prompt_ids) for q, prompt_ids in short if len(prompt_ids) < room]
        if not fits:
            raise HarnessError(
                f"no question of '{printable(self.questions_file)}' leaves room for a solution: {TOO_LONG}"
            )
        return fits, sorted({q.number for q, _ in asked} - {q.number for q, _ in fits})

    def _solved(self, lm: CausalLM, asked: Sequence[Asked], drawing: Drawing) -> dict[str, Any]:
        """Return the verdicts on the solutions of some questions, and the seconds that they took."""
        from harness.methods.rollouts import samples

        started = time.perf_counter()
        names = [f"question {q.number}" for q, _ in asked]
        solved = samples(lm, [ids for _, ids in asked], names=names, count=self.samples, drawing=drawing)
        verdicts = []
        for (question, prompt_ids), rollouts in zip(asked, solved, strict=True):
            judge = Judge(lm.tokenizer, question.gold, self.verifier, before=prompt_ids)
            verdicts.append([astuple(judge(rollout.token_ids, is_cut=rollout.is_cut)) for rollout in rollouts])
        return {"verdicts": verdicts, "seconds": time.perf_counter() - started}

    def _report(
        self,
        made: Sequence[tuple[Question, list[Verdict]]],
        chosen: Sequence[Chosen],
        left_out: Sequence[int],
        seconds: float,
    ) -> dict[str, Any]:
        verdicts = [verdict for _, each in made for verdict in each]
        none_right = sum(one.right is None for one in chosen)
        return {
            "questions": len(made),
            "left_out": {TOO_LONG: list(left_out)} if left_out else {},
            "samples": len(verdicts),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "rate": sum(verdict.is_right for verdict in verdicts) / len(verdicts),
            "wrong_with_an_answer": sum(v.answer is not None and not v.is_right for v in verdicts) / len(verdicts),
            "no_answer": sum(verdict.answer is None for verdict in verdicts) / len(verdicts),
            "unfinished": sum(verdict.is_unfinished for verdict in verdicts) / len(verdicts),
            "pairs": sum(one.right is not None and one.wrong is not None for one in chosen),
            "questions_without_right": none_right,
            "questions_without_wrong": sum(one.wrong is None and one.right is not None for one in chosen),
            "right": len(made) - none_right,
            "wrong": sum(len(one.negatives) for one in chosen),
            "seconds": round(seconds, 1),
        }


def _trajectories(question: Question, verdicts: Sequence[Verdict]) -> Iterable[dict[str, Any]]:
    for number, verdict in enumerate(verdicts):
        yield {
            "question": question.number,
            "sample": number,
            "response": verdict.text,
            "answer": verdict.answer,
            "right": verdict.is_right,
            "unfinished": verdict.is_unfinished,
        }


def _pair(question: Question, verdicts: Sequence[Verdict], right: int | None, wrong: int | None) -> dict[str, Any]:
    assert right is not None and wrong is not None
    return {
        "question": question.number,
        "prompt": question.prompt,
        "chosen": _own_part(verdicts[right].text),
        "rejected": _own_part(verdicts[wrong].text),
        "answer": question.gold,
        "rejected_answer": verdicts[wrong].answer,
    }


def _solution(question: Question, verdict: Verdict) -> dict[str, Any]:
    return {"question": question.number, "prompt": question.prompt, "answer": _own_part(verdict.text)}


def _own_part(text: str) -> str:
    """Return a solution up to where the model begins a question of its own."""
    ends = [at for at in (text.find(stop) for stop in STOPS) if at >= 0]
    return text[: min(ends)] if ends else text


def _tell(report: dict[str, Any]) -> None:
    for reason, numbers in report["left_out"].items():
        say(f"questions left out: {len(numbers)} with {reason}")
    say(
        f"{report['pairs']} pairs of {report['questions']} questions: {report['questions_without_right']} have no right "
        f"solution, {report['questions_without_wrong']} no wrong one"
    )
    if not report["pairs"]:
        say("no question has both a right and a wrong solution, so pairs.jsonl is empty; change temperature or samples")
    if report["rate"] < LEAST_RATE:
        say(
            f"this model solves {report['rate']:.0%} of its attempts; with less than {LEAST_RATE:.0%} pairs are of few "
            "questions, and critical tokens found with it say little"
        )
    if report["unfinished"] > MOST_UNFINISHED:
        say(
            f"{report['unfinished']:.0%} of the solutions were cut before they gave an answer; give a larger max_new_tokens"
        )
