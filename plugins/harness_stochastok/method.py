"""StochasTok as a method: fine-tune with LoRA on randomly re-split text, evaluate with the ordinary tokenizer."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import new_folder, write_atomic
from harness.methods import corpus
from harness.progress import say
from harness_stochastok.examples import read_examples, rows
from harness_stochastok.splitting import table_digest
from harness_stochastok.windows import Resplitter, Windows, expansion_report

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from peft import PeftModel

    from harness.methods import training
    from harness.models.causal import CausalLM

PROBE_TEXT = (
    "The ferry left the harbour at seven, as it did every morning. Nobody on board knew yet that the lighthouse keeper "
    "had painted his door green, and that the gulls would talk of nothing else until spring."
)
DEFAULT_CONTEXT = 512


@dataclass(frozen=True)
class StochasTok:
    """Train on text whose tokens are randomly split into smaller ones (Sims et al., 2025, arXiv 2506.01687).

    The tokenizer stays as it is, and evaluation uses it as it is: randomness exists only in training text. A LoRA
    adapter is trained; it is merged into floating-point weights and kept active on quantised ones.

    Options:
        train_file: UTF-8 text with one document per line, .jsonl, or a folder of .txt, .md and .jsonl; by default the
            documentation that comes with Python (pydoc_data.topics).
        train_dataset: a Hugging Face dataset instead, as name or name:config, or a folder saved to disk.
        train_split: its split.
        text_column: its column, or the key in .jsonl, that holds the text.
        scheme: stochastok splits tokens at random, bpe_dropout skips merges at random (Provilkov et al., 2020), none
            trains on ordinary tokens: the fine-tuning everything is compared with.
        proportion: split attempts per token, 0 or more (the paper's p).
        dropout: probability with which bpe_dropout skips a merge, 0 to 1.
        resplit: draw new splits every epoch, or once as the reference does.
        steps: optimiser steps; 0 leaves the weights alone and reports the expansion.
        learning_rate: peak of AdamW's rate.
        warmup_steps: steps to the peak; by default 5 % of all.
        batch_size: windows per step.
        context_length: tokens per window; by default 512, or what the model takes if that is less.
        rank: of the LoRA adapter.
        alpha: of the LoRA adapter; the update is scaled by alpha / rank.
        target_modules: linear layers to adapt, as all-linear or names joined by +; embeddings stay frozen.
        examples_file: .jsonl with prompt and answer, trained on after the re-split text with loss on the answer only
            (python -m harness_tasks.langgame.generate writes one).
        examples_steps: optimiser steps on the examples; by default one pass.
        examples_learning_rate: peak rate on the examples.
        expand_examples: whether examples are re-split too; the paper's second stage is not.
    """

    name: ClassVar[str] = "stochastok"

    train_file: Path | None = None
    train_dataset: str | None = None
    train_split: str = "train"
    text_column: str = "text"
    scheme: Literal["stochastok", "bpe_dropout", "none"] = "stochastok"
    proportion: float = 0.1
    dropout: float = 0.1
    resplit: Literal["epoch", "once"] = "epoch"
    steps: int = 1_000
    learning_rate: float = 1e-4
    warmup_steps: int | None = None
    batch_size: int = 8
    context_length: int | None = None
    rank: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ("all-linear",)
    examples_file: Path | None = None
    examples_steps: int | None = None
    examples_learning_rate: float = 1e-4
    expand_examples: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        for name in ("proportion", "dropout", "steps", "warmup_steps", "examples_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it has to be 0 or more")
        for name in ("learning_rate", "examples_learning_rate", "batch_size", "rank", "alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be more than 0")
        if self.dropout > 1:
            raise ValueError(f"dropout is {self.dropout}; it is a probability, 0 to 1")
        if self.context_length is not None and self.context_length < 2:
            raise ValueError(f"context_length is {self.context_length}; a window has at least 2 tokens")
        if not self.target_modules:
            raise ValueError("target_modules is empty; name layers, or all-linear")

    @property
    def leaves_model_unchanged(self) -> bool:
        """Whether these options train nothing."""
        return self.steps == 0 and not self._trains_examples

    def fingerprint(self) -> str:
        """Read the training text and examples, and return their digest.

        Raises:
            HarnessError: one of them cannot be used.
        """
        digest = hashlib.sha256(self._corpus.digest.encode())
        if self.examples_file is not None:
            digest.update(json.dumps(read_examples(self.examples_file)).encode())
        return digest.hexdigest()

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Train an adapter, or take the finished one in ``workdir``, and return the LM with it.

        Args:
            lm: a ``CausalLM``; with ``steps=0`` anything with a tokenizer.
            seed: seeds the expansion, the order of text and the adapter's first weights.
            workdir: holds ``adapter/`` (PEFT's format) and ``report.json`` afterwards.

        Raises:
            HarnessError: the LM has no weights to train, the text is too short, or training broke down.
        """
        resplitter = Resplitter(lm.tokenizer, self.scheme, self.proportion, self.dropout, seed)
        if self.leaves_model_unchanged:
            expansion_report(self._corpus, resplitter)
            self._write_report(workdir, resplitter, {})
            return lm
        if lm.model is None:
            raise HarnessError(
                f"method '{self.name}' trains a model, which {type(lm).__name__} has not; steps=0 reports alone"
            )
        if (workdir / "adapter").is_dir():
            return self._with_finished_adapter(lm, workdir)
        return self._train(lm, resplitter, workdir)

    @property
    def _trains_examples(self) -> bool:
        return self.examples_file is not None and self.examples_steps != 0

    @cached_property
    def _corpus(self) -> corpus.Corpus:
        return corpus.read(
            file=self.train_file, dataset=self.train_dataset, split=self.train_split, column=self.text_column
        )

    def _train(self, lm: Any, resplitter: Resplitter, workdir: Path) -> CausalLM:
        from harness.methods import adapters

        probe_ids = lm.tokenizer.encode(PROBE_TEXT, add_special_tokens=False)
        before = adapters.probe_loss(lm.model, probe_ids)
        length = self.context_length or min(DEFAULT_CONTEXT, lm.max_length)
        if length > lm.max_length:
            raise HarnessError(f"context_length {length} is more than the model's {lm.max_length}")
        model = adapters.add_adapter(
            lm.model, rank=self.rank, alpha=self.alpha, target_modules=self.target_modules, seed=resplitter.seed
        )
        stages = {}
        if self.steps:
            stages["training"] = self._train_on_text(model, resplitter, length).report()
        if self._trains_examples:
            stages["examples"] = self._train_on_examples(model, resplitter, length).report()
        with new_folder(workdir / "adapter") as folder:
            adapters.save_adapter(model, folder)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        handed_on, probe = adapters.hand_on(model, probe_ids=probe_ids, before=before)
        figures = stages | {
            "probe": probe.report(),
            "trainable_parameters": trainable,
            "context_length": length,
            "tokens_trained": sum(stage["tokens_trained"] for stage in stages.values()),
        }
        self._write_report(workdir, resplitter, figures)
        lm_after: CausalLM = lm.replace(model=handed_on)
        return lm_after

    def _train_on_text(self, model: PeftModel, resplitter: Resplitter, length: int) -> training.TrainingLog:
        from harness.methods import training

        windows = iter(
            Windows(
                self._corpus,
                resplitter,
                length,
                tokens_needed=self.steps * self.batch_size * length,
                once=self.resplit == "once",
            )
        )
        return training.train(
            model,
            (training.pad([(window, window) for window in batch]) for batch in _batched(windows, self.batch_size)),
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_steps=_default(self.warmup_steps, math.ceil(0.05 * self.steps)),
            label=f"Training ({self.scheme})",
        )

    def _train_on_examples(self, model: PeftModel, resplitter: Resplitter, length: int) -> training.TrainingLog:
        from harness.methods import training

        assert self.examples_file is not None
        examples = read_examples(self.examples_file)
        steps = _default(self.examples_steps, math.ceil(len(examples) / self.batch_size))
        endless = rows(examples, resplitter, length=length, expand_examples=self.expand_examples)
        return training.train(
            model,
            (training.pad(batch) for batch in _batched(endless, self.batch_size)),
            steps=steps,
            learning_rate=self.examples_learning_rate,
            warmup_steps=math.ceil(0.05 * steps),
            label="Training (examples)",
        )

    def _with_finished_adapter(self, lm: Any, workdir: Path) -> CausalLM:
        from harness.methods import adapters

        known = json.loads((workdir / "report.json").read_text(encoding="utf-8"))["probe"]
        probe_ids = lm.tokenizer.encode(PROBE_TEXT, add_special_tokens=False)
        model = adapters.load_adapter(lm.model, workdir / "adapter")
        handed_on, probe = adapters.hand_on(model, probe_ids=probe_ids, before=known["before"])
        if not math.isclose(probe.after, known["after"], rel_tol=1e-2):
            raise HarnessError(
                f"the adapter kept from an earlier run scores {probe.after:.4f} on the probe text where it scored "
                f"{known['after']:.4f}; train it anew with --no-cache"
            )
        lm_after: CausalLM = lm.replace(model=handed_on)
        return lm_after

    def _write_report(self, workdir: Path, resplitter: Resplitter, figures: dict[str, Any]) -> None:
        text = self._corpus
        growth = resplitter.growth.report()
        splits = self.scheme == "stochastok" and self.proportion > 0
        table = resplitter.split_table if splits else {}
        report = {
            "text": {"name": text.name, "documents": len(text.documents), "digest": text.digest},
            "expansion": growth,
            "split_table": {
                "tokens": len(table),
                "pairs": sum(map(len, table.values())),
                "sha256": table_digest(table) if table else None,
            },
            **figures,
        }
        write_atomic(workdir / "report.json", json.dumps(report, indent=1, allow_nan=False))
        say(
            f"{self.scheme}: {growth['tokens_before']:,} tokens became {growth['tokens_after']:,} "
            f"({growth['growth']:+.1%}; {growth['successes']:,} of {growth['attempts']:,} attempts split a token)"
        )


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


def _default(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
