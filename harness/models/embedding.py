"""``embed`` requests: what they ask, each distinct thing once, sorted and batched by tokens, no vector that says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy
import numpy.typing

from harness.errors import HarnessError
from harness.models.guards import NotFinite, named
from harness.names import printable, suggestion

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Vector = numpy.typing.NDArray[numpy.float32]
Role = Literal["query", "document"]
ROLES = ("query", "document")
# What becomes of a text without a character: refused, or a vector of zeros, which is counted.
EMPTY = ("error", "zero")
FIELDS = ("instruction", "role")
# The number of the document that requests of a corpus belong to: none, so that no sample holds them.
CORPUS = -1


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing to embed; two requests that are equal here have one vector.

    Attributes:
        text: as the task gives it.
        instruction: the task in words, for models that take one; None where there is none.
        role: on which side of a search the text stands; None where sides are alike.
    """

    text: str
    instruction: str | None = None
    role: Role | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but white space to read."""
        return not self.text.strip()


def corpus_of(task: str) -> str:
    """Return under which name the texts of a task's corpus are counted: they are no requests of its documents."""
    return f"the corpus of {task}"


def counted_under(request: Instance) -> str:
    """Return under which name what is cut of a request is counted in ``truncated``: its task's, or that of its corpus."""
    task = str(request.task_name)
    return corpus_of(task) if request.doc_id == CORPUS else task


def asked(request: Instance) -> Asked:
    """Return what a request asks, whose arguments are ``(text, {"instruction": ..., "role": ...})``.

    Raises:
        HarnessError: they are not; the request is named.
    """
    text, rest = request.args[0], request.args[1] if len(request.args) > 1 else {}
    if not isinstance(text, str) or not isinstance(rest, Mapping) or len(request.args) > 2:
        raise HarnessError(
            f"{named(request)} is no 'embed' request: its arguments have to be a text and a dict of instruction and role"
        )
    for name in rest:
        if name not in FIELDS:
            raise HarnessError(f"{named(request)} says '{printable(name)}'; {suggestion(str(name), FIELDS)}")
    instruction, role = rest.get("instruction"), rest.get("role")
    if instruction is not None and not isinstance(instruction, str):
        raise HarnessError(f"{named(request)} has an instruction that is no text: {printable(instruction)}")
    if role is not None and role not in ROLES:
        raise HarnessError(f"{named(request)} has the role '{printable(role)}'; {suggestion(str(role), ROLES)}")
    return Asked(text, instruction or None, role)


def answered(
    requests: Sequence[Instance],
    embed: Callable[[list[Asked]], Iterable[tuple[int, Any]]],
    *,
    empty: str = "error",
    tell: Callable[[str, Any, Vector], None] | None = None,
    flag: str = "--model_args",
    is_part: bool = False,
) -> list[Any]:
    """Return the vector of each request, in order; what several ask alike is embedded once.

    Args:
        embed: of distinct things, none of them empty, yields the number of each and its vector, in any order.
        empty: ``error`` refuses a text of white space alone, ``zero`` gives it a vector of zeros.
        tell: is told of each request's answer as soon as it is there, as ``Answering.tell``.
        flag: the command's flag that ``empty`` is given with, for the sentence of an error.
        is_part: ``embed`` yields some of the vectors only.

    Returns:
        float32 arrays (D,), one object for equal requests, which nobody may write to; None where ``embed`` yields none.

    Raises:
        HarnessError: a request is malformed, or its text is empty; it is named with its index.
        NotFinite: a vector holds NaN or infinite numbers.
    """
    wanted = [asked(request) for request in requests]
    places: dict[Asked, list[int]] = {}
    for place, one in enumerate(wanted):
        if one.is_empty and empty == "error":
            raise HarnessError(
                f"the text of embed request {place} is empty ({named(requests[place])}), and there is nothing to embed; "
                f"mend the data, or give such texts zeros with {flag} empty=zero"
            )
        places.setdefault(one, []).append(place)
    distinct = [one for one in places if not one.is_empty]
    answers: list[Vector | None] = [None] * len(requests)
    width = 0
    for number, raw in embed(distinct):
        owners = places[distinct[number]]
        vector = checked(raw, requests[owners[0]], width=width)
        width = len(vector)
        for place in owners:
            answers[place] = vector
            if tell is not None:
                tell("embed", requests[place].args, vector)
    if is_part and not width:
        return answers
    return _whole(answers, wanted, width, is_part=is_part)


def checked(raw: Any, request: Instance, *, width: int = 0) -> Vector:
    """Return a vector as float32 (D,) that nobody may write to.

    Args:
        width: of the vectors before it; 0 for the first one.

    Raises:
        NotFinite: it holds NaN or infinite numbers; ``request`` is named.
        HarnessError: it is no vector, of another width, or of length 0.
    """
    vector = numpy.array(raw.numpy() if hasattr(raw, "numpy") else raw, dtype=numpy.float32)
    if vector.ndim != 1 or not vector.size or (width and vector.size != width):
        due = f"a vector of {width} numbers is due" if width else "a vector is due"
        raise HarnessError(f"{named(request)} was answered with an array of shape {vector.shape}, where {due}")
    if not numpy.isfinite(vector).all():
        raise NotFinite(f"{named(request)} got a vector with NaN or infinite numbers; try --model_args dtype=float32")
    if not vector.any():
        raise HarnessError(
            f"{named(request)} got a vector of zeros, which is as near to every other as to none: the model's output is "
            "broken, or its pooling finds no token"
        )
    vector.flags.writeable = False
    return vector


def batches(lengths: Sequence[int], *, most_tokens: int, most_rows: int | None = None) -> Iterator[list[int]]:
    """Yield the numbers of rows that go through a model together, the longest first.

    A batch is as long as its longest row, and holds no more than ``most_tokens`` with its padding; a longer row goes alone.

    Args:
        lengths: of all rows, in tokens.
        most_rows: of one batch; None is no bound.
    """
    rows: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[rows[0]] if rows else lengths[number]
        if rows and ((len(rows) + 1) * longest > most_tokens or len(rows) == most_rows):
            yield rows
            rows = []
        rows.append(number)
    if rows:
        yield rows


def _whole(answers: Sequence[Vector | None], wanted: Sequence[Asked], width: int, *, is_part: bool) -> list[Any]:
    """Return the answers with zeros for empty texts."""
    if answers and not width:
        raise HarnessError("every text is empty, so that not even the width of the vectors is known; mend the data")
    zeros = numpy.zeros(width, dtype=numpy.float32)
    zeros.flags.writeable = False
    found: list[Vector | None] = []
    for answer, one in zip(answers, wanted, strict=True):
        if answer is None and not one.is_empty and not is_part:
            raise HarnessError(f"the model gave no vector for '{printable(one.text[:60])}'")
        found.append(zeros if answer is None and one.is_empty else answer)
    return found
