"""The tasks on planted errors: the likelier solution, the likelier token at the very place, and what a model recovers from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.tasks.own_docs import Doc, OwnDocsTask, whole_number
from harness_critical_tokens import verify
from harness_critical_tokens.stories import write_stories

Scored = tuple[float, bool]
"""What a ``loglikelihood`` request gives: nats, and whether greedy decoding gives the same."""


class Planted(OwnDocsTask):
    """Stories of split ``test``: none of their sums occur in stories that ``stories`` writes for training.

    Metadata:
        stories: how many.
        seed: draws them.
        style: a style's name, some joined by ``+``, or ``mixed``.
    """

    def make_docs(self, metadata: Mapping[str, Any]) -> list[Doc]:
        """Return one document a story, ``text`` being its question."""
        count = whole_number("stories", metadata["stories"], at_least=1)
        seed = whole_number("seed", metadata["seed"], at_least=0)
        rows = write_stories(count, seed=seed, styles=str(metadata["style"]), split="test")
        return [{"text": row["prompt"], **row} for row in rows]


class PlantedPairs(Planted):
    """Whether the right solution is likelier than the wrong one: ``acc``; per token, as lengths differ: ``acc_per_token``."""

    request_types = ("loglikelihood",)
    metrics: ClassVar[dict[str, bool]] = {"acc": True, "acc_per_token": True}

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the question with each solution, the right one first."""
        return [(doc["prompt"], doc["chosen"]), (doc["prompt"], doc["rejected"])]

    def score(self, doc: Doc, answers: list[Scored]) -> dict[str, float]:
        """Return both metrics; a tie counts as wrong."""
        (right, _), (wrong, _) = answers
        right_tokens, wrong_tokens = (self._tokens(doc["prompt"], doc[side]) for side in ("chosen", "rejected"))
        return {"acc": float(right > wrong), "acc_per_token": float(right / right_tokens > wrong / wrong_tokens)}

    def _tokens(self, prompt: str, response: str) -> int:
        """Return how many tokens a response adds to its prompt, at least 1."""
        both, before = (
            len(self.tokenizer.encode(text, add_special_tokens=False)) for text in (prompt + response, prompt)
        )
        return max(1, both - before)


class PlantedStep(Planted):
    """Whether a model prefers what should stand at the place of the error, after the wrong solution up to there.

    ``acc``: share of the stories. ``lead``: by how many nats, on average.
    """

    request_types = ("loglikelihood",)
    metrics: ClassVar[dict[str, bool]] = {"acc": True, "lead": True}

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the text before the error with what should stand there, and with what does; blanks belong to these."""
        before = doc["prompt"] + doc["rejected"][: doc["critical_span"][0]]
        context = before.rstrip()
        return [(context, before[len(context) :] + doc[name]) for name in ("right_text", "wrong_text")]

    def score(self, doc: Doc, answers: list[Scored]) -> dict[str, float]:
        """Return both metrics; a tie counts as wrong."""
        (right, _), (wrong, _) = answers
        return {"acc": float(right > wrong), "lead": right - wrong}


class PlantedRecovery(Planted):
    """Whether a model that goes on from the middle of a solution ends right, judged by the whole solution's answer.

    ``before``: from just before the error. ``with_wrong``: with the wrong text there. ``with_right``: with the right one.
    """

    request_types = ("generate_until",)
    metrics: ClassVar[dict[str, bool]] = {"before": True, "with_wrong": True, "with_right": True}

    def arguments(self, doc: Doc) -> list[tuple[Any, ...]]:
        """Return the three texts to go on from, greedily and to the end of the line."""
        settings = {"until": ["\n"], "do_sample": False, "repetition_penalty": 1.0, "max_gen_toks": 160}
        return [(doc["prompt"] + response, settings) for response in self._begun(doc)]

    def score(self, doc: Doc, answers: list[str]) -> dict[str, float]:
        """Return for each text whether what begins with it and goes on as generated has the right answer."""
        gold = str(doc["answer"])
        return {
            name: float(verify.is_right(response + answer, gold, "number"))
            for name, response, answer in zip(self.metrics, self._begun(doc), answers, strict=True)
        }

    def _begun(self, doc: Doc) -> list[str]:
        """Return the three beginnings of a solution; a blank at the end is the model's to write."""
        start = doc["critical_span"][0]
        before = doc["rejected"][:start]
        return [before.rstrip(), before + doc["wrong_text"], before + doc["right_text"]]
