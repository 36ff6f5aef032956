"""Makes the logs of inspect in ``made/``: ``python make_logs.py FOLDER``, with inspect-ai 0.3.285 in an environment of its own.

The model is inspect's mock, whose answers are drawn here; all the rest, scoring and files, is inspect's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

DOCS = 12


def questions(changed: Collection[int]) -> list[Any]:
    """Return sums with their ids; those whose numbers are in ``changed`` ask otherwise under the same id."""
    from inspect_ai.dataset import Sample

    return [
        Sample(id=i + 1, input=f"What is {i} + {i + 1}?" + (" Say it." if i in changed else ""), target=str(2 * i + 1))
        for i in range(DOCS)
    ]


def make(folder: Path, model: str, rate: float, **more: Any) -> None:
    """Run the sums and leave a log in ``folder``; ``more``: seed, form, changed, failing, epochs, and what ``eval`` takes."""
    from inspect_ai import Epochs, Task, eval
    from inspect_ai.dataset import MemoryDataset
    from inspect_ai.log import write_eval_log
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, PARTIAL, Score, accuracy, match, mean, scorer, stderr
    from inspect_ai.solver import generate

    @scorer(metrics=[accuracy(), stderr()])  # type: ignore[misc]
    def graded() -> Any:
        async def score(state: Any, target: Any) -> Any:
            text = state.output.completion
            if not text:
                return Score(value=NOANSWER)
            wrong = PARTIAL if int(state.sample_id) % 3 == 0 else INCORRECT
            return Score(value=CORRECT if text == target.text else wrong, answer=text)

        return score

    @scorer(metrics={"length": [mean(), stderr()], "digits": [mean()]})  # type: ignore[misc]
    def counts() -> Any:
        async def score(state: Any, target: Any) -> Any:
            text = state.output.completion
            return Score(value={"length": len(text), "digits": sum(map(str.isdigit, text))})

        return score

    draws, failing = random.Random(more.pop("seed", 0)), more.pop("failing", ())

    def answer(messages: Any, *_: Any) -> Any:
        number = int(messages[-1].text.split()[2])
        if number in failing:
            raise ValueError("the model broke")
        draw = draws.random()
        text = str(2 * number + 1) if draw < rate else "" if draw > 0.95 else str(2 * number + 2)
        output = ModelOutput.from_content(model, text)
        output.usage = ModelUsage(
            input_tokens=5, output_tokens=1, total_tokens=6
        )  # else it is counted by a downloaded tokenizer
        return output

    data = MemoryDataset(questions(more.pop("changed", ())), name="sums")
    epochs = more.pop("epochs", None)
    [log] = eval(
        Task(dataset=data, solver=generate(), scorer=[match(), graded(), counts()], version=2, name="sums"),
        model=get_model(f"mockllm/{model}", custom_outputs=answer), log_dir=str(folder), log_format=more.pop("form", "eval"),
        fail_on_error=not failing, display="none", epochs=Epochs(epochs, ["mean", "max"]) if epochs else None, **more,
    )  # fmt: skip
    for sample in log.samples or ():
        if sample.error is not None:  # no place of the machine where this ran
            sample.error.traceback = sample.error.traceback_ansi = ""
            sample.events = []
    if failing:
        write_eval_log(log, log.location)


def main(folder: Path) -> None:
    """Make all logs."""
    make(folder / "weak", "weak", 0.5, seed=1)
    make(folder / "strong", "strong", 0.8, seed=2)
    make(folder / "moved", "strong", 0.8, seed=3, changed=(1, 2))
    make(folder / "errors", "strong", 0.8, seed=4, failing=(3, 4))
    make(folder / "epochs", "strong", 0.8, seed=5, epochs=3, limit=4)
    make(folder / "json", "weak", 0.5, seed=6, form="json", limit=3)
    make(folder / "empty", "weak", 0.5, seed=7, limit=(0, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
