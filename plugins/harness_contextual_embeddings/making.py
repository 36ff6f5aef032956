"""From a decoder to an embedder: its parts put together, trained in stages or taken from a folder, and measured."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.methods import adapters, training
from harness.methods.known_texts import text_digest
from harness.models.embedding import Asked
from harness.names import printable
from harness.progress import say
from harness.seeds import stream_seed
from harness_contextual_embeddings import saving
from harness_contextual_embeddings.embedder import Embedder, check_bidirectional, check_rows
from harness_contextual_embeddings.lessons import PairLesson, Reader, TokenLesson
from harness_contextual_embeddings.lm import ContextualLM
from harness_contextual_embeddings.pairs import TrainingFile
from harness_contextual_embeddings.projector import Projector, root_mean_square
from harness_contextual_embeddings.reading import POOLINGS, Reading, reading_for, text_ids
from harness_contextual_embeddings.stop_words import stop_words
from harness_contextual_embeddings.token_targets import Targeted, TargetSettings, make_targets

if TYPE_CHECKING:
    from harness.models.causal import CausalLM
    from harness.models.encoder import Encoder

# What sizes and lengths are measured on.
SENTENCES = (
    "The ferry left the harbour at seven.",
    "Two children are building a castle of wet sand.",
    "How do I change the address on my account?",
    "The committee voted against the new bridge.",
    "A dog runs across a field of snow.",
    "Stock prices fell sharply in the afternoon.",
    "What does this error message mean?",
    "She plays the violin in a small orchestra.",
)
# From so many pairs on the encoder is trained unless the user says otherwise.
ENOUGH_PAIRS = 10_000
# Stages that train key tokens, by the targets they are given.
TOKENS_OF_A_PASS = 256  # in training on a processor: more at once is no faster there, and pads more
STAGES = {"data": ("data",), "model": ("model",), "mixed": ("mixed",), "data_then_model": ("data", "model")}


def load_encoder(name: str, *, device: str, empty: str = "error") -> Encoder:
    """Return an encoder by folder or name, with the pooling, prompts and lengths that its files say.

    Raises:
        HarnessError: there is none, or it cannot be read.
    """
    from harness.models.encoder_loading import check, load
    from harness.models.finding import resolve

    source = resolve({"pretrained": name, "empty": empty, "dtype": "float32"})
    check(source)
    return load(source, device=device, batch_size="auto")


def make(options: Any, lm: CausalLM, *, seed: int) -> Making:
    """Return the parts of an embedder, untrained.

    Raises:
        HarnessError: model and options do not fit.
    """
    way, device = POOLINGS[options.pooling], str(lm.device)
    reading = reading_for(
        lm.tokenizer,
        pooling=options.pooling,
        context_position=options.context_position,
        bos=options.bos,
        max_length=min(options.max_length, int(lm.max_length)),
        template=options.template,
        examples=options.examples,
    )
    encoder = load_encoder(str(options.encoder), device=device) if way.has_context else None
    embedder = Embedder(lm.model, encoder)
    probe = text_ids(lm.tokenizer, SENTENCES[:1])[0]
    if way.is_bidirectional:
        check_bidirectional(embedder, probe)
    if encoder is not None:
        check_rows(embedder, probe)
        embedder.projector = _projector(embedder, encoder, probe, seed=seed).to(embedder.device)
    window = getattr(lm.model.config.get_text_config(), "sliding_window", None)
    if way.has_context and isinstance(window, int) and window < reading.max_length:
        say(
            f"the model's attention reaches back {window} tokens; in longer texts the end does not see the contextual token"
        )
    pass_tokens = TOKENS_OF_A_PASS if embedder.device.type == "cpu" else options.part_tokens
    return Making(options, lm, Reader(lm.tokenizer, reading, encoder, pass_tokens), embedder, seed)


def _projector(embedder: Embedder, encoder: Encoder, probe: list[int], *, seed: int) -> Projector:
    """Return a random projector whose rows are as large as the decoder's own."""
    with torch.no_grad():
        vectors = embedder.encode(encoder.rows([Asked(text) for text in SENTENCES]))
        rows = embedder.rows(torch.tensor([probe], device=embedder.device))
        size = root_mean_square(embedder.rows.weight) * _scaling(embedder, probe, rows)
    projector = Projector(vectors.shape[1], embedder.width, seed=stream_seed(seed, "projector"))
    projector.to(vectors.device).scale_to(size, vectors)
    return projector


def _scaling(embedder: Embedder, probe: list[int], rows: torch.Tensor) -> float:
    """Return by what the table of input rows multiplies what is looked up in it; 1 for nearly all models."""
    table = embedder.rows.weight[torch.tensor(probe, device=embedder.device)]
    return root_mean_square(rows) / root_mean_square(table)


@dataclass
class Making:
    """An embedder on its way.

    Attributes:
        options: the method, ``ContextualEmbeddings``.
        source: the LM as it was given.
        reader: of texts.
        embedder: encoder, projector, decoder.
        seed: the method's.
        trained_on: digests of the texts it was trained on.
    """

    options: Any
    source: CausalLM
    reader: Reader
    embedder: Embedder
    seed: int
    trained_on: frozenset[str] = field(default_factory=frozenset)

    @property
    def reading(self) -> Reading:
        """How texts are read."""
        return self.reader.reading

    @property
    def reads(self) -> dict[str, Any]:
        """What has to be the same when the embedder is used as when it was trained."""
        return {
            "context_position": self.reading.context_position,
            "bos": self.reading.bos,
            "template": self.reading.template,
        }

    def lm(self) -> ContextualLM:
        """Return the LM that embeds."""
        self.embedder.eval()
        self.embedder.requires_grad_(False)
        options = self.options
        return ContextualLM(
            self.embedder,
            replace(self.reader, keeps_vectors=True, truncated=0, truncated_for_encoder=0, known={}),
            mode=options.mode,
            normalise=options.normalise,
            is_zeroed=options.context == "zero",
            empty=options.empty,
            most_tokens=options.part_tokens,
            trained_on=self.trained_on,
        )

    def take(self, folder: Path) -> dict[str, Any]:
        """Take a trained embedder from a folder, and return what is told of it.

        Raises:
            HarnessError: it does not fit these models.
        """
        kept = saving.read(folder)
        for name, value in self.reads.items():
            if kept.reads.get(name) != value:
                say(
                    f"the embedder was trained with {name} {printable(kept.reads.get(name))}, and reads texts with "
                    f"{printable(value)} now: its scores will suffer"
                )
        before = self._probe_loss()
        saving.load(folder, self.embedder, kept)
        self.trained_on = kept.trained_on
        return {"probe": self._hand_on(before), "loaded": True}

    def train(self, pairs: TrainingFile | None, texts: TrainingFile | None, folder: Path) -> dict[str, Any]:
        """Train in stages, write the embedder to ``folder``, and return what is told of it.

        Raises:
            HarnessError: the files have nothing to train on, or training broke down; nothing is written then.
        """
        options, embedder, before = self.options, self.embedder, self._probe_loss()
        trains_encoder = self._trains_encoder(pairs)
        self.reader.keeps_vectors = not trains_encoder
        read_before, self.reader.reading = self.reading, replace(self.reading, max_length=self._train_length())
        stages = list(self._stages(pairs, texts))
        embedder.requires_grad_(False)
        embedder.decoder = adapters.add_adapter(
            embedder.decoder,
            rank=options.rank,
            alpha=options.alpha,
            target_modules=options.target_modules,
            seed=stream_seed(self.seed, "adapter") % 2**63,
        )
        for part, is_trained in ((embedder.projector, True), (embedder.encoder, trains_encoder)):
            if part is not None:
                part.requires_grad_(is_trained)
        report: dict[str, Any] = {"tokens_trained": 0, "stages": {}, "trains_encoder": trains_encoder}
        for name, lesson, skipped in stages:
            report["stages"][name] = self._stage(name, lesson, skipped)
            report["tokens_trained"] += report["stages"][name]["tokens_trained"]
        report["truncated_in_training"] = {
            "decoder": self.reader.truncated,
            "encoder": self.reader.truncated_for_encoder,
        }
        self.reader.reading = read_before
        known = {*(pairs.texts if pairs else ()), *(texts.texts if texts else ())}
        self.trained_on = frozenset(map(text_digest, known))
        width = None if embedder.projector is None else embedder.projector.widths[0]
        kept = saving.Kept(embedder.width, width, self.reads, trains_encoder, self.trained_on)
        saving.save(folder, embedder, kept)
        return report | {"probe": self._hand_on(before)}

    @torch.no_grad()
    def measured(self) -> dict[str, Any]:
        """Return widths, the mean length of both halves and the positions of a text, on some sentences."""
        sequences = self.reader.read([(text, None) for text in SENTENCES])
        rows = self.reader.contextual(self.embedder, SENTENCES)
        vectors = self.embedder.pooled(
            sequences, rows, mode=self.options.mode, is_bidirectional=self.reading.way.is_bidirectional
        )
        width = self.embedder.width
        found: dict[str, Any] = {
            "pooling": self.options.pooling,
            "width": vectors.shape[1],
            "decoder_width": width,
            "positions_per_text": sum(map(len, sequences)) / len(sequences),
            "mean_length": float(vectors.norm(dim=-1).mean()),
        }
        if self.embedder.projector is not None:
            found["encoder_width"] = self.embedder.projector.widths[0]
        if vectors.shape[1] == 2 * width:
            halves = {"context": vectors[:, :width], "eos": vectors[:, width:]}
            found["mean_length_of"] = {name: float(half.norm(dim=-1).mean()) for name, half in halves.items()}
        return found

    def _stages(
        self, pairs: TrainingFile | None, texts: TrainingFile | None
    ) -> Iterator[tuple[str, PairLesson | TokenLesson, int]]:
        """Yield name, lesson and the number of skipped texts of each stage; targets are the untrained model's."""
        options = self.options
        if texts is not None:
            settings = TargetSettings(
                options.top_k,
                options.max_df,
                options.tf,
                options.beyond_text,
                options.prior,
                options.mix,
                stop_words(options.stop_words),
            )
            mode = options.token_mode
            for kind in STAGES[options.target]:
                targeted: Targeted = make_targets(kind, self.embedder, self.reader.tokenizer, texts.texts, settings)
                yield (
                    f"tokens_{kind}",
                    TokenLesson(
                        self.reader,
                        mode,
                        targeted.texts,
                        targeted.targets,
                        batch_size=options.batch_size,
                        most_tokens=options.part_tokens,
                        seed=stream_seed(self.seed, "tokens", kind),
                    ),
                    targeted.skipped,
                )
        if pairs is not None:
            yield "contrastive", self._pair_lesson(pairs), 0

    def _pair_lesson(self, pairs: TrainingFile) -> PairLesson:
        options = self.options
        lesson = PairLesson(
            self.reader,
            options.mode,
            pairs.pairs,
            batch_size=options.batch_size,
            most_tokens=options.part_tokens,
            temperature=options.temperature,
            symmetric=options.symmetric,
            own_negatives_only=options.own_negatives_only,
            instruction=options.instruction,
            instructs_documents=options.instruct_documents,
            seed=self.seed,
        )
        next(lesson.batches())  # a file that has no batch, or a text without room, is told before anything is trained
        self.reader.truncated = 0
        return lesson

    def _stage(self, name: str, lesson: PairLesson | TokenLesson, skipped: int) -> dict[str, Any]:
        options, started = self.options, time.monotonic()
        log = training.train(
            self.embedder,
            lesson.batches(),
            steps=options.trained_steps,
            learning_rate=options.learning_rate,
            warmup_steps=math.ceil(0.1 * options.trained_steps),
            label="Contrasting" if name == "contrastive" else "Learning tokens",
            loss=lesson.loss,
            rate_of=self._rate_of,
        )
        found = log.report() | {"seconds": round(time.monotonic() - started, 1)}
        del found["labels_trained"]  # there are none
        return found | ({} if name == "contrastive" else {"skipped_texts": skipped, "texts": len(lesson.texts)})  # type: ignore[union-attr]

    def _rate_of(self, name: str) -> float:
        options = self.options
        rates = {"projector": options.projector_learning_rate, "encoder": options.encoder_learning_rate}
        return rates.get(name.split(".")[0], options.learning_rate)

    def _trains_encoder(self, pairs: TrainingFile | None) -> bool:
        if not self.reading.way.has_context:
            return False
        if self.options.train_encoder is not None:
            return self.options.train_encoder
        return pairs is not None and len(pairs.pairs) >= ENOUGH_PAIRS

    def _train_length(self) -> int:
        return min(self.options.train_length, self.reading.max_length)

    def _probe_ids(self) -> list[int]:
        return text_ids(self.reader.tokenizer, SENTENCES[:1])[0]

    def _probe_loss(self) -> float:
        return adapters.probe_loss(self.embedder.decoder, self._probe_ids())

    def _hand_on(self, before: float) -> dict[str, Any]:
        """Merge the adapter where that is possible, and return what it did to a probe text's loss."""
        handed_on, probe = adapters.hand_on(self.embedder.decoder, probe_ids=self._probe_ids(), before=before)
        self.embedder.decoder = handed_on
        return probe.report()
