"""The method: a decoder becomes an embedder, with a contextual token or by one of its rivals, trained or not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.methods.options import check_least
from harness.names import printable
from harness.progress import say
from harness_contextual_embeddings.pairs import TrainingFile, read_pairs, read_texts
from harness_contextual_embeddings.reading import POOLINGS, TEMPLATE
from harness_contextual_embeddings.stop_words import stop_words

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from harness.models.causal import CausalLM
    from harness_contextual_embeddings.lm import ContextualLM

EMBEDDER = "embedder"
STEPS = 1_000


@dataclass(frozen=True)
class ContextualEmbeddings:
    """Embed texts with a decoder that sees a summary of the whole text first (Causal2Vec; Lin et al., 2025), or by a rival.

    A small encoder reads the text, a projector makes one input row of its vector, the contextual token, which stands before the
    text; the embedding is the final state there, then the one at the end of the text. Trained by contrast of pairs, or on key
    tokens of texts (Text2Token; An et al., 2025). The LM answers embed requests and no others.

    Options:
        encoder: folder or name of the encoder that the contextual token comes from; with its pooling, prompts and length.
        pooling: context_eos (both states side by side), context or eos_after_context (one of them), sum; without a contextual
            token eos, last, mean, weighted_mean, prompteol (a prompt that asks for one word), echo (the text twice),
            bidirectional (no causal mask); encoder (the encoder alone).
        objective: contrastive, tokens (Text2Token), or tokens_then_contrastive.
        train_file: .jsonl with query, positive and, if you like, negatives (a list), instruction and source; for tokens also
            lines of text. Needed to train.
        text_file: what tokens are trained on, where that is not train_file.
        steps: optimiser steps of each stage; by default 1,000 where there is a train_file, else 0.
        batch_size: pairs or texts per step.
        learning_rate: peak of AdamW's rate for the adapter.
        projector_learning_rate: for the projector.
        encoder_learning_rate: for the encoder, where it is trained.
        temperature: of the contrastive loss.
        symmetric: contrast positives with queries, too.
        own_negatives_only: a query's negatives are no other's.
        instruction: in training, stands before queries whose rows have none of their own.
        instruct_documents: in training, positives and negatives have their query's instruction, too.
        rank: of the adapter.
        alpha: of the adapter; the update is scaled by alpha / rank.
        target_modules: linear layers to adapt, as all-linear or names joined by +.
        train_encoder: by default only where there are 10,000 pairs or more.
        train_length: most positions of a sequence in training.
        part_tokens: most tokens that go through the decoder at a time; a larger step is taken in parts, with the same gradients.
        context_position: where the contextual token stands, text (directly before it) or front (right after BOS).
        context: what its input row is, encoder or zero; zero shows what it is good for.
        bos: whether sequences begin with BOS, always (where the tokenizer has one), auto (where it puts one itself) or never.
        max_length: most positions of a sequence, no more than the model has.
        normalise: whether vectors have length 1.
        normalise_halves: whether both halves have length 1 before they are put together.
        template: what stands before a text with an instruction, with {task} in it; empty reads no instruction.
        examples: worked examples before the instruction, joined by +, or a JSON list.
        empty: what becomes of a text of white space, error or zero.
        target: of tokens, data (by the corpus), model (by the untrained model), mixed, or data_then_model (two stages).
        token_halves: of a contextual embedding, what the head reads key tokens out of, eos or both (the mean of both losses).
        top_k: most tokens of a target.
        max_df: tokens in a larger share of the texts are no target.
        tf: how often a token stands in a text counts as log, count or binary.
        beyond_text: the model's targets are no tokens of the text itself.
        prior: what the model says of every text is taken out of its targets.
        mix: share of the corpus in mixed targets.
        stop_words: english (built in), none, or a file with one word a line.
        load: a folder artefacts/embedder that an earlier run left, or one of save, in the place of training.
        save: a folder for what was trained (adapter, projector, encoder, JSON, the report), beside the run's own artefacts; it
            may not be there, or has to be empty.
    """

    name: ClassVar[str] = "contextual_embeddings"
    answers: ClassVar[frozenset[str]] = frozenset({"embed", "tokenize"})

    encoder: str | None = None
    pooling: Literal[
        "context_eos", "context", "eos_after_context", "sum", "eos", "last", "mean", "weighted_mean", "prompteol", "echo",
        "bidirectional", "encoder",
    ] = "context_eos"  # fmt: skip
    objective: Literal["contrastive", "tokens", "tokens_then_contrastive"] = "contrastive"
    train_file: Path | None = None
    text_file: Path | None = None
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 5e-4
    projector_learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-5
    temperature: float = 0.05
    symmetric: bool = False
    own_negatives_only: bool = False
    instruction: str | None = None
    instruct_documents: bool = False
    rank: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ("all-linear",)
    train_encoder: bool | None = None
    train_length: int = 64
    part_tokens: int = 1024
    context_position: Literal["text", "front"] = "text"
    context: Literal["encoder", "zero"] = "encoder"
    bos: Literal["auto", "always", "never"] = "always"
    max_length: int = 512
    normalise: bool = True
    normalise_halves: bool = False
    template: str = TEMPLATE
    examples: tuple[str, ...] = ()
    empty: Literal["error", "zero"] = "error"
    target: Literal["data", "model", "mixed", "data_then_model"] = "data"
    token_halves: Literal["eos", "both"] = "eos"
    top_k: int = 32
    max_df: float = 0.2
    tf: Literal["log", "count", "binary"] = "log"
    beyond_text: bool = True
    prior: bool = True
    mix: float = 0.5
    stop_words: str = "english"
    load: Path | None = None
    save: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        check_least(self, steps=0, batch_size=1, rank=1, train_length=4, part_tokens=1, max_length=4, top_k=1)
        for name in ("temperature", "learning_rate", "projector_learning_rate", "encoder_learning_rate", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a number above 0 is due")
        for name in ("max_df", "mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a share from 0 to 1 is due")
        if self.encoder is None and self.reads_encoder:
            raise ValueError(
                f"pooling={self.pooling} needs an encoder: give its folder, or take pooling=prompteol, say"
            )
        if self.template and "{task}" not in self.template:
            raise ValueError("template has no {task} in it, where the instruction would stand")
        if not self.target_modules:
            raise ValueError("target_modules is empty; name layers, or all-linear")
        self._check_training()

    def _check_training(self) -> None:
        if self.trained_steps and self.train_file is None:
            raise ValueError("train_file is missing; it is needed to train, and steps=0 trains nothing")
        if self.trained_steps and self.load is not None:
            raise ValueError("load is given, whose embedder is trained already; leave steps and train_file out")
        if self.save is not None and not self.trained_steps:
            raise ValueError("save is given, and nothing is trained that could be saved; give a train_file")
        if self.trained_steps and self.pooling == "encoder":
            raise ValueError("pooling=encoder is the encoder alone, of which nothing is trained; leave train_file out")
        if self.train_encoder and not POOLINGS[self.pooling].has_context:
            raise ValueError(
                f"train_encoder is given, and pooling={self.pooling} has no contextual token to train it by"
            )
        if self.token_halves == "both" and not POOLINGS[self.pooling].has_context:
            raise ValueError(f"token_halves=both is given, and pooling={self.pooling} has no contextual half")

    @property
    def reads_encoder(self) -> bool:
        """Whether an encoder is asked for its vectors."""
        return POOLINGS[self.pooling].has_context or self.pooling == "encoder"

    @property
    def models(self) -> tuple[str, ...]:
        """The encoder, where it is asked."""
        return (self.encoder,) if self.encoder is not None and self.reads_encoder else ()

    @property
    def trained_steps(self) -> int:
        """Optimiser steps of each stage."""
        return (STEPS if self.train_file is not None and self.load is None else 0) if self.steps is None else self.steps

    @property
    def mode(self) -> str:
        """What ``pooling.pool`` makes of the states."""
        mode = POOLINGS[self.pooling].mode
        return "context_eos_halves_normalised" if mode == "context_eos" and self.normalise_halves else mode

    @property
    def token_mode(self) -> str:
        """What ``pooling.pool`` makes of the states for the head to read key tokens out of."""
        if not POOLINGS[self.pooling].has_context:
            return self.mode
        return "context_eos" if self.token_halves == "both" else "eos"

    @property
    def leaves_model_unchanged(self) -> bool:
        """Whether these options train nothing and load nothing."""
        return self.trained_steps == 0 and self.load is None

    def fingerprint(self) -> str:
        """Read the training files, and return the digest of all inputs.

        Raises:
            HarnessError: one of them cannot be used, or the folder to save to has files.
        """
        from harness.models.finding import load_tokenizer, resolve

        _ = self._saves_to
        from harness.models.identity import digest_files, tokenizer_digest

        parts = [file.digest for file in (self._pairs, self._texts) if file is not None]
        if self.encoder is not None and self.reads_encoder:
            parts += [resolve({"pretrained": self.encoder}).digest, str(tokenizer_digest(load_tokenizer(self.encoder)))]
        if self.load is not None:
            from harness_contextual_embeddings.saving import read

            read(self.load)
            parts.append(digest_files([file for file in self.load.rglob("*") if file.is_file()], below=self.load))
        if self._texts is not None:
            parts.append(" ".join(sorted(stop_words(self.stop_words))))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def _saves_to(self) -> Path | None:
        """The folder to save to, which was free when it was looked at first: before any work."""
        save = self.save
        if save is None or not (save.exists() or save.is_symlink()):
            return save
        if save.is_symlink() or not save.is_dir() or any(save.iterdir()):
            raise HarnessError(
                f"save: '{printable(save)}' is there already, and is no empty folder; name another, or remove it"
            )
        return save

    @cached_property
    def _pairs(self) -> TrainingFile | None:
        if not self.trained_steps or self.objective == "tokens" or self.train_file is None:
            return None
        return read_pairs(self.train_file)

    @cached_property
    def _texts(self) -> TrainingFile | None:
        path = self.text_file or self.train_file
        if not self.trained_steps or self.objective == "contrastive" or path is None:
            return None
        return read_texts(path)

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Train the embedder, or take the finished one in ``workdir`` or ``load``, and return the LM that embeds with it.

        Args:
            lm: a ``CausalLM``.
            seed: seeds the projector's and the adapter's first weights and the order of the training rows.
            workdir: holds ``embedder/`` and ``report.json`` afterwards.

        Raises:
            HarnessError: the LM has no weights, or none that fit; a file is unusable; training broke down.
        """
        import torch

        from harness.models.causal import CausalLM

        if not isinstance(lm, CausalLM):
            raise HarnessError(
                f"contextual_embeddings needs a decoder with its weights, and this is {type(lm).__name__}; take --model hf"
            )
        with torch.random.fork_rng():
            return self._made(lm, seed=seed, workdir=workdir)

    def _made(self, lm: CausalLM, *, seed: int, workdir: Path) -> LM:
        from harness_contextual_embeddings import making, saving

        if self.pooling == "encoder":
            assert self.encoder is not None
            write_atomic(workdir / "report.json", json.dumps({"pooling": "encoder"}))
            return making.load_encoder(self.encoder, device=str(lm.device), empty=self.empty)
        made = making.make(self, lm, seed=seed)
        folder = workdir / EMBEDDER if (workdir / EMBEDDER).is_dir() else self.load
        if folder is not None:
            report = made.take(folder)
        elif self.trained_steps:
            report = made.train(self._pairs, self._texts, workdir / EMBEDDER)
        else:
            report = {}
            if POOLINGS[self.pooling].has_context:
                say(
                    "the projector is random and the decoder does not know what to do with a contextual token; train it "
                    "(train_file=...), or see what pooling=prompteol gives without training"
                )
        embeds = made.lm()
        if not (workdir / "report.json").is_file():
            report |= made.measured() | {"alignment": self._alignment(embeds)}
            write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
        if self._saves_to is not None:
            saving.copy(workdir / EMBEDDER, workdir / "report.json", self._saves_to)
        return embeds

    def _alignment(self, lm: ContextualLM) -> dict[str, float]:
        """Return how far embeddings and texts agree, on the first texts of the training file or on some sentences."""
        from harness_contextual_embeddings.explaining import MOST_REPORTED, alignment, explain
        from harness_contextual_embeddings.making import SENTENCES

        files = [file for file in (self._texts, self._pairs) if file is not None]
        return alignment(explain(lm, files[0].texts[:MOST_REPORTED] if files else SENTENCES))
