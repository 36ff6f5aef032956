"""Any LM that answers ``embed``, as mteb takes a model: its own tasks then run on it, where mteb is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import numpy.typing
from lm_eval.api.instance import Instance

from harness.models.embedding import Vector

Matrix = numpy.typing.NDArray[numpy.float32]


class ForMTEB:
    """An encoder as mteb 2 calls it: ``mteb.evaluate(ForMTEB(lm, name="mine/tiny"), tasks=...)``.

    Args:
        lm: answers ``embed``, such as ``harness.models.encoder.Encoder``.
        name: ``OWNER/MODEL``, as mteb's results call it.
        revision: of the model.
        instructions: whether the task's own sentence is handed on as the instruction of its texts: on both sides where
            sides are alike, of a search before queries alone.
    """

    def __init__(self, lm: Any, *, name: str, revision: str = "local", instructions: bool = True) -> None:
        self.lm, self.name, self.revision, self.instructions = lm, name, revision, instructions

    def encode(
        self, inputs: Iterable[Mapping[str, Sequence[str]]], *, task_metadata: Any, prompt_type: Any = None, **_: Any
    ) -> Matrix:
        """Return the vectors (N, D) of batches of texts, each ``{"text": [...]}``."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        named = {"instruction": self._instruction(task_metadata, role), "role": role}
        requests = [
            Instance("embed", {}, (text, named), number, (str(task_metadata.name), number, 1))
            for number, text in enumerate(texts)
        ]
        found: list[Vector] = self.lm.embed(requests)
        return numpy.stack(found) if found else numpy.zeros((0, 0), dtype=numpy.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Matrix:
        """Return the cosine of every pair, (N, M); of vectors of zeros 0.

        It is computed in double precision and then rounded, so that documents with one vector have one score: a product in
        single precision depends on the place where a row stands, and tells them apart.
        """
        return numpy.asarray(_unit(embeddings1) @ _unit(embeddings2).T, dtype=numpy.float32)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Matrix:
        """Return the cosine of each pair, (N,)."""
        pairs = 1 - numpy.square(_unit(embeddings1) - _unit(embeddings2)).sum(axis=-1) / 2
        return numpy.asarray(pairs, dtype=numpy.float32)

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes down of the model."""
        from mteb.models.model_meta import ModelMeta

        unknown = (
            "loader", "release_date", "languages", "n_parameters", "memory_usage_mb", "embed_dim", "license", "open_weights",
            "public_training_code", "public_training_data", "training_datasets",
        )  # fmt: skip
        return ModelMeta(
            **dict.fromkeys(unknown),
            name=self.name,
            revision=self.revision,
            max_tokens=self.lm.max_length,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=self.instructions,
        )

    def _instruction(self, task_metadata: Any, role: str | None) -> str | None:
        prompt = getattr(task_metadata, "prompt", None) if self.instructions else None
        if isinstance(prompt, Mapping):
            prompt = prompt.get(role or "query")
        return None if prompt is None or role == "document" else str(prompt)


def _unit(vectors: Any) -> Any:
    rows = numpy.atleast_2d(numpy.asarray(vectors, dtype=numpy.float64))
    lengths = numpy.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / numpy.where(lengths > 0, lengths, 1)
