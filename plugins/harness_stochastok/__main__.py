"""``python -m harness_stochastok "TEXT"``: show what StochasTok does to a text before paying for a training run."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness_stochastok.splitting import build_split_table, count_attempts, expand, stream_seed, token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLE_TEXT = "How many letters are there in the word strawberry?"

EPILOG = """\
how to read it:
  How| many| letters| are| st·raw·berry|?
    |   the border of an ordinary token
    ·   a cut inside one: both sides are tokens of the same vocabulary, and the text stays the same
  Control characters and parts of a character are escaped, as in \\n and \\xe4.

An attempt draws one of the pieces there are by then and splits it in two; it is lost where the piece has no split. The
proportion counts attempts per token: 0.1 on 50 tokens makes 5 attempts. BPE-dropout instead tokenizes the text again and
skips each merge with some probability, so its cuts can also lie across an ordinary border, which then is not shown.

examples:
  python -m harness_stochastok "Unbelievable!" --proportion 0.1 0.5 1
  python -m harness_stochastok "Unbelievable!" --tokenizer ./my_model --draws 3 --seed 7
  python -m harness_stochastok "Unbelievable!" --scheme bpe_dropout --dropout 0.1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the expansions asked for and return the exit status: 2 after a mistake the user can correct."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character still shows the cuts
    try:
        from harness.models.loading import load_tokenizer

        for line in _report(arguments, load_tokenizer(arguments.tokenizer)):
            print(line)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def mark_pieces(token_ids: Sequence[int], piece_ids: Sequence[int], spelling: Mapping[int, bytes]) -> str:
    """Return the text of ``piece_ids`` with ``|`` at the borders of ``token_ids`` and ``·`` at all other cuts.

    Args:
        token_ids: the ordinary tokens of a text.
        piece_ids: other tokens that spell the same.
        spelling: the bytes of every id in the two.
    """
    borders = set(accumulate(len(spelling[token]) for token in token_ids))
    ends = list(accumulate(len(spelling[piece]) for piece in piece_ids))
    marks = ["|" if end in borders else "·" for end in ends[:-1]]
    return "".join(
        _escape(spelling[piece]) + mark for piece, mark in zip(piece_ids, [*marks, ""][: len(piece_ids)], strict=True)
    )


def _escape(spelled: bytes) -> str:
    """Return text in which whatever does not print, and what we mark cuts with, is escaped."""
    text = spelled.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace").replace("|", "\\|").replace("·", "\\·")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _report(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the lines to print."""
    if arguments.draws < 1:
        raise HarnessError(f"--draws {arguments.draws} shows nothing: give 1 or more")
    token_ids = tokenizer.encode(arguments.text, add_special_tokens=False, verbose=False)
    spelling = _Spelling(tokenizer)
    yield f"tokens: | ends a token, {len(token_ids)} of them"
    yield f"     {mark_pieces(token_ids, token_ids, spelling)}"
    for title, resplit, attempts in _schemes(arguments, tokenizer, token_ids):
        yield f"\n{title}: · cuts inside a token"
        for draw in range(1, arguments.draws + 1):
            piece_ids = resplit(stream_seed(arguments.seed, draw))
            yield f"{draw:>3}  {mark_pieces(token_ids, piece_ids, spelling)}"
            yield f"     {_growth(len(token_ids), len(piece_ids), attempts)}"
