"""What a task may ask and what comes back: Explained answers, and whether an answer is drawn."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

# In the trace of a text that ended while the model was still thinking, which makes it an empty answer.
CUT_IN_THINKING = {"cut_in_thinking": True}


class Explained(str):
    """Generated text that carries its ``trace``: what happened while it was made, as JSON values.

    To lm-eval, filters and metrics it is text like any other. The trace reaches the sample files (``traces``) and is
    kept with the answers of an interrupted run; ``process_results`` finds it where no filter made other text of it.
    """

    trace: list[Any]

    def __new__(cls, text: str = "", trace: Sequence[Any] = ()) -> Explained:
        """Return ``text`` with ``trace``."""
        made = super().__new__(cls, text)
        made.trace = list(trace)
        return made


def shown(answer: Any) -> Any:
    """Return an answer as sample files hold it: of a vector what tells it from another, never its numbers."""
    if isinstance(answer, list | tuple):
        return [shown(part) for part in answer]
    if not hasattr(answer, "tobytes"):
        return answer
    length = float((answer.astype("float64") ** 2).sum() ** 0.5)
    digest = hashlib.sha256(answer.tobytes()).hexdigest()[:16]
    return f"vector of {answer.size} numbers, length {length:.6g}, sha256 {digest}"


def as_json(answer: Any) -> Any:
    """Return an answer as JSON can hold it, with its trace; a vector to the last bit."""
    if hasattr(answer, "tobytes"):
        return {"float32": base64.b64encode(answer.astype("<f4").tobytes()).decode()}
    return {"text": str(answer), "trace": answer.trace} if isinstance(answer, Explained) else answer


def from_json(value: Any) -> Any:
    """Return the answer that ``as_json`` made ``value`` of."""
    if isinstance(value, dict) and value.keys() == {"float32"}:
        import numpy

        return numpy.frombuffer(base64.b64decode(value["float32"]), dtype="<f4")
    is_explained = isinstance(value, dict) and value.keys() == {"text", "trace"}
    return Explained(value["text"], value["trace"]) if is_explained else value


def is_drawn(generation: Any) -> bool:
    """Return whether these settings of a generation draw at random, as lm-eval reads them.

    ``do_sample`` decides, where it is not given a temperature above 0. Of one token nothing is drawn (``top_k`` 1), and at
    a temperature of 0 neither.
    """
    temperature, do_sample = generation.get("temperature"), generation.get("do_sample")
    if do_sample is None:
        do_sample = bool(temperature)
    is_one = generation.get("top_k") == 1
    is_asked = do_sample is True or str(do_sample).lower() in {"true", "1", "yes"}
    return is_asked and not is_one and not (temperature is not None and not temperature)
