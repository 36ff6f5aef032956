"""Tool tokens as a method: rows for tools beside a frozen model's output head, from a prior, trained on a handful of texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.progress import say
from harness_tool_tokens.answering.prompting import PromptBook
from harness_tool_tokens.rows.examples import EXAMPLES, example_rows, needed_example_rows
from harness_tool_tokens.rows.texts import Row, draw_shots, read_rows, rows_digest, split, trained_on
from harness_tool_tokens.tools import data_folder
from harness_tool_tokens.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from torch import Tensor

    from harness_tool_tokens.answering.equipped import Tools
    from harness_tool_tokens.rows.saving import ToolRows
    from harness_tool_tokens.rows.states import States

ROWS_FILE = "tool_rows.safetensors"
MOST_LOSSES = 50
STARTS: Mapping[str, Literal["random", "zeros"]] = {"random_start": "random", "zero_start": "zeros"}
ROWLESS = frozenset({"no_tools", "in_context", "oracle_call"})


@dataclass(frozen=True)
class ToolTokens:
    """Let a frozen model call tools through rows of its output head (Hao et al., 2023; Li et al., 2025).

    A tool's row competes with the vocabulary for the next token. Where it wins, the model writes the arguments, the tool
    runs, and its result takes the token's place. Rows start at a prior made of the tool's name; training moves nothing else.

    Options:
        tools: arithmetic (thirteen), gsm8k (its first four) or files of your own (.py, .toml, .json, .jsonl), joined by +.
        first_tools: keep only so many of them.
        train_file: .jsonl with text and calls to train the rows on; looked for in $HARNESS_TOOL_DATA, too. The word examples
            trains on the tools' own examples. Without it the prior is used as it is.
        first_rows: keep only so many rows of train_file.
        rows_file: rows that an earlier run saved (tool_rows.safetensors), used as they are.
        shots_per_tool: train on so many rows of each tool, drawn by the seed; by default on all.
        holdout: rows of each tool to leave out, for the task tool_choice; give the task the same number.
        holdout_seed: draws them.
        variant: tools; or a baseline: no_tools, in_context (calls written as text after a list of tools), oracle_tool (the
            right tool where any fires or a result is due), oracle_call (right calls, run), random_start, zero_start.
        prior: what rows start from.
        prior_text: which text of a tool the prior is made of.
        prior_template: text with a slot {} for it; by default a space before it, as inside a text.
        centre: subtract the mean over tools from the prior.
        prior_length: length of the prior's rows; unit/sqrt(d) is 1 over the root of the model's width.
        penalty: weight of the distance to the prior in training.
        penalty_form: squared (as the paper's figure), norm (as its code) or none.
        positions: train on all positions, or on those of tools alone, after which tools fire everywhere.
        word_positions: keep a random sample of so many word positions, reweighted; by default all.
        learning_rate: of Adam.
        epochs: passes over the rows; by default 10, and no fewer than 3,000 steps.
        steps: optimiser steps instead.
        batch_size: rows of text per step.
        bias: added to every tool's logit; auto takes the value with the best F1 on the tools' own examples, or on the rows
            trained on where tools have none.
        max_calls: calls in one answer; after them tools are off.
        max_argument_tokens: tokens in which a call has to close.
        tool_timeout: seconds for one call of a tool of yours.
        rounding: of results; paper rounds to two decimals as the publication does.
        on_error: after a failing call write the next best token, the error as text, or stop.
        prompts_file: JSON with a prompt for each tool of a data set; by default they are made of the tools' examples.
    """

    name: ClassVar[str] = "tool_tokens"
    leaves_model_unchanged: ClassVar[bool] = True
    answers: ClassVar[frozenset[str]] = frozenset({"tool_choice"})

    tools: tuple[str, ...] = ("arithmetic",)
    first_tools: int | None = None
    train_file: str | None = None
    first_rows: int | None = None
    rows_file: Path | None = None
    shots_per_tool: int | None = None
    holdout: int = 0
    holdout_seed: int = 0
    variant: Literal["tools", "no_tools", "in_context", "oracle_tool", "oracle_call", "random_start", "zero_start"] = (
        "tools"
    )
    prior: Literal["head_rows", "hidden_mean", "hidden_last", "input_rows", "random", "zeros"] = "head_rows"
    prior_text: Literal["name", "description", "name+description"] = "name"
    prior_template: str = " {}"
    centre: bool = False
    prior_length: float | Literal["unit/sqrt(d)", "word_mean", "keep"] = "keep"
    penalty: float = 0.0
    penalty_form: Literal["squared", "norm", "none"] = "squared"
    positions: Literal["all", "tools"] = "all"
    word_positions: int | None = None
    learning_rate: float = 1e-3
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 1
    bias: float | Literal["auto"] = "auto"
    max_calls: int = 10
    max_argument_tokens: int = 64
    tool_timeout: float = 5.0
    rounding: Literal["paper", "exact"] = "paper"
    on_error: Literal["next_best", "text", "stop"] = "next_best"
    prompts_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        at_least = {"holdout": 0, "penalty": 0, "max_calls": 0, "max_argument_tokens": 1, "batch_size": 1}
        optional = {
            "first_tools": 1,
            "first_rows": 1,
            "shots_per_tool": 0,
            "word_positions": 1,
            "epochs": 0,
            "steps": 0,
        }
        for name, least in (at_least | optional).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it has to be {least} or more")
        for name in ("learning_rate", "tool_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be more than 0")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; leave one out")
        if self.rows_file is not None and self.train_file is not None:
            raise ValueError("rows_file and train_file are both given; rows are loaded or trained")
        if self.variant in STARTS and self.rows_file is not None:
            raise ValueError(f"variant={self.variant} starts anew, and rows_file gives finished rows; leave one out")
        if not self.tools:
            raise ValueError("tools is empty; name some, such as arithmetic")
        if self.prior_template and "{}" not in self.prior_template:
            raise ValueError("prior_template has no slot {}")

    def fingerprint(self) -> str:
        """Read tools, rows and prompts, and return their digest.

        Raises:
            HarnessError: one of them cannot be used.
        """
        digest = hashlib.sha256(self._toolbox.digest.encode())
        digest.update(self._prompts.digest.encode())
        digest.update(rows_digest([*self._rows[0], *self._rows[1]]).encode())
        if self.rows_file is not None:
            if not self.rows_file.is_file():
                raise HarnessError(f"no file at '{self.rows_file}'")
            digest.update(self.rows_file.read_bytes())
        return digest.hexdigest()

    def apply(self, lm: LM, *, seed: int, workdir: Path) -> LM:
        """Make the tools' rows, or take those in ``workdir``, and return the LM that calls tools.

        Args:
            lm: a ``CausalLM``; its model stays as it is.
            seed: draws shots, the order of rows, and random starts.
            workdir: holds ``tool_rows.safetensors`` and ``report.json`` afterwards.

        Raises:
            HarnessError: the LM has no model, or what the options name does not fit it.
        """
        from harness.models.causal import CausalLM
        from harness_tool_tokens.answering.lm import ToolTokenLM

        if not isinstance(lm, CausalLM):
            raise HarnessError(f"method '{self.name}' needs a model that generates, which {type(lm).__name__} is not")
        made = None if self.variant in ROWLESS else self._made(lm, seed, workdir)
        return ToolTokenLM(lm.model, lm.tokenizer, tools=self._tools(made), **lm.settings)

    @cached_property
    def _toolbox(self) -> Toolbox:
        return Toolbox.load(self.tools, first=self.first_tools)

    @cached_property
    def _rows(self) -> tuple[list[Row], list[Row]]:
        """The rows that may be trained on, and the held-out ones."""
        if self.train_file is None:
            return [], []
        if self.train_file == EXAMPLES:
            rows = needed_example_rows(self._toolbox)
        else:
            rows = read_rows(data_folder.find(self.train_file), self._toolbox)
        rows = rows[: self.first_rows]
        return split(rows, holdout=self.holdout, seed=self.holdout_seed)

    @cached_property
    def _prompts(self) -> PromptBook:
        return PromptBook(self._toolbox, None if self.prompts_file is None else data_folder.find(self.prompts_file))

    def _tools(self, made: ToolRows | None) -> Tools:
        from harness_tool_tokens.answering.equipped import Tools
        from harness_tool_tokens.answering.parts import Limits
        from harness_tool_tokens.answering.tool_head import ToolHead
        from harness_tool_tokens.tools.executing import Executor

        return Tools(
            toolbox=self._toolbox,
            head=None if made is None else ToolHead(made.rows, made.bias),
            executor=Executor(self._toolbox, timeout=self.tool_timeout, rounding=self.rounding),
            prompts=self._prompts,
            limits=Limits(self.max_calls, self.max_argument_tokens, self.on_error),
            variant=self.variant,
            trained_on=frozenset(made.trained_on if made is not None else ()),
        )

    def _made(self, lm: Any, seed: int, workdir: Path) -> ToolRows:
        """Return the tools' rows: those of an identical run, those of a file, or trained ones."""
        from harness_tool_tokens.rows.saving import ToolRows

        path = workdir / ROWS_FILE
        if path.is_file():
            return ToolRows.load(path, lm=lm, toolbox=self._toolbox)
        prior = self._prior(lm, seed)
        if self.rows_file is not None:
            made = ToolRows.load(self.rows_file, lm=lm, toolbox=self._toolbox).filled(prior)
            if self.bias != "auto":
                made = made.with_bias(self.bias)
            report: dict[str, Any] = {"rows_file": made.training_rows}
        else:
            shots = draw_shots(self._rows[0], self.shots_per_tool, seed=seed, toolbox=self._toolbox)
            made, report = self._trained(lm, prior, shots, seed)
        made.save(path)
        say(f"tools get a bias of {made.bias:.3g}")
        lengths = prior.norm(dim=-1)
        report |= {"tools": len(self._toolbox), "bias": made.bias, "prior_length": float(lengths.mean())}
        write_atomic(workdir / "report.json", json.dumps(_rounded(report), allow_nan=False))
        return made

    def _prior(self, lm: Any, seed: int) -> Tensor:
        from harness_tool_tokens.rows.prior import prior_rows, prior_texts

        kind = STARTS.get(self.variant, self.prior)
        texts = prior_texts(self._toolbox, use=self.prior_text, template=self.prior_template)
        if self.rows_file is None:
            say(
                f"rows of {len(texts)} tools start from {kind}: {', '.join(texts[:4])}{', ...' if len(texts) > 4 else ''}"
            )
        return prior_rows(
            lm, texts, prior=kind, centre=self.centre and kind == self.prior, length=self.prior_length, seed=seed
        )

    def _trained(self, lm: Any, prior: Tensor, shots: list[Row], seed: int) -> tuple[ToolRows, dict[str, Any]]:
        from harness_tool_tokens.rows.saving import ToolRows
        from harness_tool_tokens.rows.training import measure

        rows, states, report = self._train(lm, prior, shots, seed) if shots else (prior, None, {})
        bias = self._bias(lm, rows, shots) if self.bias == "auto" else self.bias
        if states is not None:
            report["on_training_rows"] = measure(states, rows, bias)
        made = ToolRows.of(
            lm,
            self._toolbox,
            rows,
            prior,
            bias=bias,
            settings={
                "prior": STARTS.get(self.variant, self.prior),
                "prior_text": self.prior_text,
                "penalty": self.penalty,
            },
            training_rows=rows_digest(shots) if shots else "",
            trained_on=trained_on(shots),
        )
        return made, report

    def _train(self, lm: Any, prior: Tensor, shots: list[Row], seed: int) -> tuple[Tensor, States, dict[str, Any]]:
        """Return trained rows, what they were trained on, and a report."""
        from harness_tool_tokens.rows.states import frozen_states
        from harness_tool_tokens.rows.texts import encode_rows
        from harness_tool_tokens.rows.training import Settings, train

        encoded = encode_rows(lm, shots, self._toolbox, positions=self.positions)
        states = frozen_states(lm, encoded, word_positions=self.word_positions, seed=seed)
        settings = Settings(
            penalty=self.penalty,
            penalty_form=self.penalty_form,
            lr=self.learning_rate,
            epochs=self.epochs,
            steps=self.steps,
            batch=self.batch_size,
            seed=seed,
        )
        rows, report = train(states, prior, prior, settings)
        losses = report.pop("losses")
        if losses:
            tenth = max(1, len(losses) // 10)
            report["loss_first"], report["loss_last"] = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
            say(
                f"trained on {len(shots)} texts in {len(losses)} steps, {report['seconds']:.1f} s: loss "
                f"{report['loss_first']:.3f} to {report['loss_last']:.3f}"
            )
        # A few of the losses: the report is part of every record.
        report["losses"] = losses[:: max(1, -(-len(losses) // MOST_LOSSES))]
        report["tokens_trained"] = round(len(states) * report["epochs"])
        return rows, states, report

    def _bias(self, lm: Any, rows: Tensor, shots: Sequence[Row]) -> float:
        """Return the best bias on the tools' own examples, on the trained rows without such; 0 without either."""
        from harness_tool_tokens.rows.states import frozen_states
        from harness_tool_tokens.rows.texts import encode_rows
        from harness_tool_tokens.rows.training import best_bias

        own = example_rows(self._toolbox) if self.train_file != EXAMPLES else []
        rows_of_text = own or list(shots)
        if not rows_of_text:
            return 0.0
        return best_bias(frozen_states(lm, encode_rows(lm, rows_of_text, self._toolbox)), rows)


def _rounded(value: Any) -> Any:
    """Return a report with its numbers in six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
