"""``python -m harness_contextual_embeddings``: what embeddings say in words, and a text's nearest neighbours in a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import own
from harness.errors import HarnessError
from harness.names import printable

if TYPE_CHECKING:
    from harness_contextual_embeddings.lm import ContextualLM

EPILOG = """\
examples:
  python -m harness_contextual_embeddings explain texts.txt --decoder ./decoder --pooling prompteol
  python -m harness_contextual_embeddings explain texts.txt --decoder ./decoder --encoder ./encoder \\
      --load results/RUN/artefacts/embedder --output page.html
  python -m harness_contextual_embeddings neighbours texts.txt "How do I reset my card?" --decoder ./decoder --pooling mean
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status."""
    arguments = _parser().parse_args(argv)
    return own.run(lambda: _explain(arguments) if arguments.command == "explain" else _neighbours(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness_contextual_embeddings",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser(
        "explain", help="the tokens that the decoder's head reads out of each text's embedding"
    )
    neighbours = commands.add_parser("neighbours", help="the lines of a file nearest to a text")
    for command in (explain, neighbours):
        command.add_argument("file", type=Path, help="UTF-8, one text a line, or the texts of .jsonl pairs")
    neighbours.add_argument("text")
    for command in (explain, neighbours):
        command.add_argument("--decoder", help="folder or name of the decoder; by default the embedded model")
        command.add_argument("--encoder", help="folder or name of the encoder, for poolings with a contextual token")
        command.add_argument("--pooling", default="context_eos", help="as the method's option (default: %(default)s)")
        command.add_argument("--load", type=Path, help="a folder artefacts/embedder of a run")
        command.add_argument("--count", type=int, default=10, help="tokens or lines to show (default: %(default)s)")
        command.add_argument("--device")
    explain.add_argument(
        "--output",
        type=Path,
        help="write a page there instead of showing it: HTML where it ends in .html, else Markdown",
    )
    return parser


def _explain(arguments: argparse.Namespace) -> int:
    from harness_contextual_embeddings.explaining import as_page, explain
    from harness_contextual_embeddings.pairs import read_texts

    texts = read_texts(arguments.file).texts
    found = explain(_lm(arguments), texts, count=arguments.count)
    if arguments.output is not None and arguments.output.suffix.lower() in {".html", ".htm"}:
        from harness_contextual_embeddings.html_page import as_html

        decoder = str(arguments.decoder or "the embedded model")
        page = as_html(found, about=f"{printable(decoder)}, pooling {arguments.pooling}")
    else:
        page = as_page(found)
    own.write(page, arguments.output)
    return 0


def _neighbours(arguments: argparse.Namespace) -> int:
    from harness_contextual_embeddings.explaining import nearest
    from harness_contextual_embeddings.pairs import read_texts

    if not arguments.text.strip():
        raise HarnessError("the text is empty, and near to nothing")
    texts = read_texts(arguments.file).texts
    for cosine, line in nearest(_lm(arguments), arguments.text, texts, count=arguments.count):
        print(f"{cosine:.3f}  {line}")
    return 0


def _lm(arguments: argparse.Namespace) -> ContextualLM:
    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_contextual_embeddings import making
    from harness_contextual_embeddings.method import ContextualEmbeddings

    if arguments.count < 1:
        raise HarnessError(f"--count is {arguments.count}; give 1 or more")
    pooling: Any = arguments.pooling
    if pooling == "encoder":
        raise HarnessError("the encoder alone has no output head to read embeddings with; take another pooling")
    try:
        options = ContextualEmbeddings(encoder=arguments.encoder, pooling=pooling, load=arguments.load)
    except (ValueError, KeyError) as error:
        raise HarnessError(f"these options do not go together: {error}") from error
    decoder: Any = load_lm(
        resolve({"pretrained": arguments.decoder} if arguments.decoder else {}),
        device=arguments.device,
        batch_size="auto",
    )
    made = making.make(options, decoder, seed=0)
    if arguments.load is not None:
        made.take(arguments.load)
    return made.lm()


if __name__ == "__main__":
    sys.exit(main())
