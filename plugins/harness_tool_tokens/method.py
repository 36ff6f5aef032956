"""Tool tokens as a method: rows for tools beside a frozen model's output head, from a prior, trained on a handful of texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness import HarnessError
from harness.folders import write_atomic
from harness.methods.options import check_least
from harness.progress import say
from harness_tool_tokens.answering.prompting import PromptBook
from harness_tool_tokens.rows.examples import EXAMPLES, example_rows, needed_example_rows
from harness_tool_tokens.rows.naming import check_slot, prior_texts
from harness_tool_tokens.rows.settings import Settings
from harness_tool_tokens.rows.texts import Row, draw_shots, read_rows, rows_digest, split, trained_on
from harness_tool_tokens.tools import data_folder
from harness_tool_tokens.tools.toolbox import Toolbox, first_of

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
        tools: arithmetic (thirteen), gsm8k (its first four) or files of your own (.py, .toml, .json, .jsonl), joined by +;
            FILE[:30] are the first thirty of a file.
        train_file: .jsonl with text and calls to train the rows on; looked for in $HARNESS_TOOL_DATA, too; FILE[:200] are its
            first rows. The word examples trains on the tools' own examples. Without it the prior is used as it is.
        rows_file: rows that an earlier run saved (tool_rows.safetensors), used as they are.
        shots_per_tool: train on so many rows of each tool, drawn by the seed; by default on all.
        holdout: rows of each tool to leave out, for the task tool_choice; give the task the same number.
        holdout_seed: draws them.
        variant: tools; or a baseline: no_tools, in_context (calls written as text after a list of tools), oracle_tool (the
            right tool where any fires or a result is due), oracle_call (right calls, run), random_start, zero_start.
        prior: what rows start from.
        prior_text: what the prior is made of: text with a slot {name}, {description} or {name+description}; by default the
            name with a space before it, as inside a text.
        centre: subtract the mean over tools from the prior.
        prior_length: length of the prior's rows; unit/sqrt(d) is 1 over the root of the model's width.
        penalty: weight of the squared distance to the prior in training (the paper's figure); norm:0.01 weighs the
            distance itself (its code).
        positions: train on all positions; on those of tools alone, after which tools fire everywhere; or on them and a random
            sample of so many word positions, reweighted.
        learning_rate: of Adam.
        steps: optimiser steps, or passes over the rows as in "10 epochs"; by default 10 epochs, and no fewer than 3,000 steps.
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
    train_file: str | None = None
    rows_file: Path | None = None
    shots_per_tool: int | None = None
    holdout: int = 0
    holdout_seed: int = 0
    variant: Literal["tools", "no_tools", "in_context", "oracle_tool", "oracle_call", "random_start", "zero_start"] = (
        "tools"
    )
    prior: Literal["head_rows", "hidden_mean", "hidden_last", "input_rows", "random", "zeros"] = "head_rows"
    prior_text: str = " {name}"
    centre: bool = False
    prior_length: float | Literal["unit/sqrt(d)", "word_mean", "keep"] = "keep"
    penalty: float | str = 0.0
    positions: Literal["all", "tools"] | int = "all"
    learning_rate: float = 1e-3
    steps: int | str | None = None
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
        self._settings(seed=0)
        check_least(self, holdout=0, shots_per_tool=0, max_calls=0, max_argument_tokens=1)
        if self.positions not in {"all", "tools"} and int(self.positions) < 1:
            raise ValueError(f"positions is {self.positions}; a number of word positions has to be 1 or more")
        if self.tool_timeout <= 0:
            raise ValueError(f"tool_timeout is {self.tool_timeout}; it has to be more than 0")
        if self.rows_file is not None and self.train_file is not None:
            raise ValueError("rows_file and train_file are both given; rows are loaded or trained")
        if self.variant in STARTS and self.rows_file is not None:
            raise ValueError(f"variant={self.variant} starts anew, and rows_file gives finished rows; leave one out")
        if not self.tools:
            raise ValueError("tools is empty; name some, such as arithmetic")
        check_slot(self.prior_text)

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
        return Toolbox.load(self.tools)

    @cached_property
    def _rows(self) -> tuple[list[Row], list[Row]]:
        """The rows that may be trained on, and the held-out ones."""
        if self.train_file is None:
            return [], []
        if self.train_file == EXAMPLES:
            rows, first = needed_example_rows(self._toolbox), None
        else:
            name, first = first_of(self.train_file)
            rows = read_rows(data_folder.find(name), self._toolbox)
        if first is not None and first < 1:
            raise HarnessError(f"the first {first} rows of a file are asked for; give 1 or more")
        return split(rows[:first], holdout=self.holdout, seed=self.holdout_seed)

    @cached_property
    def _prompts(self) -> PromptBook:
        return PromptBook(self._toolbox, None if self.prompts_file is None else data_folder.find(self.prompts_file))

    def _settings(self, seed: int) -> Settings:
        return Settings.of(
            penalty=self.penalty,
            steps=self.steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            seed=seed,
        )

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
                made = replace(made, bias=self.bias)
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
        from harness_tool_tokens.rows.prior import prior_rows

        kind = STARTS.get(self.variant, self.prior)
        texts = prior_texts(self._toolbox, self.prior_text)
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
        from harness_tool_tokens.rows.training import train

        drawn = None if isinstance(self.positions, str) else self.positions
        encoded = encode_rows(lm, shots, self._toolbox, positions="tools" if self.positions == "tools" else "all")
        states = frozen_states(lm, encoded, word_positions=drawn, seed=seed)
        rows, report = train(states, prior, prior, self._settings(seed))
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
