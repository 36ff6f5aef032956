"""``python -m harness_stochastok "TEXT"``: show what StochasTok does to a text before paying for a training run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from harness.commands import own
from harness.errors import HarnessError
from harness.models.token_bytes import token_bytes
from harness.seeds import stream_seed
from harness_stochastok.bpe_dropout import BpeDropout
from harness_stochastok.splitting import build_split_table, count_attempts, expand

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLE_TEXT = "How many letters are there in the word strawberry?"

EPILOG = """\
how to read it:
  How| many| letters| are| in| straw·ber·ry|?
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

    def work() -> None:
        from harness.models.finding import load_tokenizer

        # All at once: after a mistake nothing is printed.
        print("\n".join(list(_report(arguments, load_tokenizer(arguments.tokenizer)))))

    return own.run(work)


def mark_pieces(token_ids: Sequence[int], piece_ids: Sequence[int], spelling: Mapping[int, bytes]) -> str:
    """Return the text of ``piece_ids`` with ``|`` at the borders of ``token_ids`` and ``·`` at all other cuts.

    Args:
        token_ids: the ordinary tokens of a text.
        piece_ids: other tokens that spell the same.
        spelling: the bytes of every id in the two.
    """
    borders = set(accumulate(len(spelling[token]) for token in token_ids))
    marked, end = "", 0
    for piece in piece_ids:
        mark = "|" if end in borders else "·"
        marked += (mark if marked else "") + _escape(spelling[piece])
        end += len(spelling[piece])
    return marked


def _escape(spelled: bytes) -> str:
    """Return text in which whatever does not print, and what marks cuts, is escaped."""
    text = spelled.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    text = text.replace("|", "\\|").replace("·", "\\·")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _report(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the lines to print."""
    if arguments.draws < 1:
        raise HarnessError(f"--draws {arguments.draws} shows nothing; give 1 or more")
    ordinary = token_bytes(tokenizer)
    spelling = {token: piece.encode() for piece, token in tokenizer.get_vocab().items()} | ordinary
    token_ids = tokenizer.encode(arguments.text, add_special_tokens=False, verbose=False)
    yield f"{_count(len(token_ids), 'token')}, with | between tokens and · where a draw cuts one"
    yield f"     {mark_pieces(token_ids, token_ids, spelling)}"
    for resplitting in _resplittings(arguments, tokenizer, token_ids, ordinary):
        yield f"\n{resplitting.title}"
        for draw in range(1, arguments.draws + 1):
            piece_ids = resplitting.draw(seed=stream_seed(arguments.seed, draw))
            yield f"{draw:>3}  {mark_pieces(token_ids, piece_ids, spelling)}"
            yield f"     {_growth(len(token_ids), len(piece_ids), resplitting.attempts)}"


@dataclass(frozen=True)
class _Resplitting:
    """One setting of a scheme: what it is called, how to draw by ``seed``, attempts a draw if it counts them."""

    title: str
    draw: Callable[..., list[int]]
    attempts: int | None = None


def _resplittings(
    arguments: argparse.Namespace,
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    ordinary: Mapping[int, bytes],
) -> Iterator[_Resplitting]:
    """Yield every setting to draw from."""
    if arguments.scheme == "bpe_dropout":
        for dropout in arguments.dropout:
            encoder = BpeDropout.from_tokenizer(tokenizer, dropout)
            yield _Resplitting(f"bpe_dropout, dropout {dropout:g}", partial(encoder.encode, arguments.text))
        return
    split_table = build_split_table(ordinary)
    for proportion in arguments.proportion:
        attempts = count_attempts(len(token_ids), proportion)
        draw = partial(expand, token_ids, split_table, proportion=proportion)
        yield _Resplitting(f"stochastok, proportion {proportion:g}", draw, attempts)


def _growth(tokens: int, pieces: int, attempts: int | None) -> str:
    """Return the line on one draw: how much longer it is and, by StochasTok, for how many attempts."""
    extra = pieces - tokens
    line = f"{_count(tokens, 'token')} -> {_count(pieces, 'piece')} ({extra / max(tokens, 1):+.1%})"
    return line if attempts is None else f"{line}, {_count(attempts, 'attempt')}, {_count(extra, 'success', 'es')}"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _text(argument: str) -> str:
    """Return an argument as UTF-8, also where the locale made Python read it as bytes."""
    try:
        return argument.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError("not valid UTF-8") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness_stochastok",
        description="Show what StochasTok (Sims et al., 2025) or BPE-dropout makes of a text, several times over.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "text", metavar="TEXT", type=_text, nargs="?", default=EXAMPLE_TEXT, help=f"default: {EXAMPLE_TEXT}"
    )
    parser.add_argument("--tokenizer", metavar="PATH", help="a model folder or hub name (default: the embedded model)")
    parser.add_argument("--scheme", choices=["stochastok", "bpe_dropout"], default="stochastok")
    parser.add_argument(
        "--proportion",
        metavar="P",
        type=float,
        nargs="+",
        default=[0.1, 0.5],
        help="stochastok: split attempts per token, >= 0 (default: 0.1 0.5)",
    )
    parser.add_argument(
        "--dropout",
        metavar="Q",
        type=float,
        nargs="+",
        default=[0.1],
        help="bpe_dropout: probability to skip a merge, 0 to 1 (default: 0.1)",
    )
    parser.add_argument("--draws", metavar="N", type=int, default=5, help="how often to draw (default: 5)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the draws (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
