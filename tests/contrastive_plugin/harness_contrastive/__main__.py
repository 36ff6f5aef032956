"""``python -m harness_contrastive page``: see what the contrast makes of a text."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.commands import own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness_contrastive", description="Look at a contrast of layers.")
    command = parser.add_subparsers(required=True).add_parser("page", help="a text with coloured tokens, as HTML")
    command.add_argument("model", help="a folder, or a name on the hub")
    command.add_argument("text")
    command.add_argument("--layer", default=1)
    command.add_argument("--alpha", default=0.1)
    command.add_argument("--output", type=Path, help="a file; left out, the page is printed")
    arguments = parser.parse_args(argv)
    return own.run(lambda: _write_page(arguments))


def _write_page(arguments: argparse.Namespace) -> None:
    from harness.methods import options
    from harness.models.finding import resolve
    from harness.models.loading import load_lm
    from harness_contrastive.method import ContrastLayers
    from harness_contrastive.report.page import page

    method = options.build(ContrastLayers, {"layer": arguments.layer, "alpha": arguments.alpha})
    lm = load_lm(resolve({"pretrained": arguments.model}), device="cpu", batch_size=1)
    own.write(page(lm, method.against(lm), arguments.text, model=arguments.model), arguments.output)


if __name__ == "__main__":
    raise SystemExit(main())
