"""Write docs/hooks.md from the docstrings of the hooks; with --check, only say whether it is current."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from harness import hookspecs
from harness.methods import Method

PAGE = Path(__file__).with_name("hooks.md")


def render() -> str:
    """Return the page."""
    parts = [
        "# Hooks",
        "",
        "Written by `make docs` from `harness/hookspecs.py` and `harness/methods/method.py`; do not edit.",
        "",
    ]
    for name, hook in vars(hookspecs).items():
        if name.startswith("harness_"):
            parts += [f"## `{name}{inspect.signature(hook)}`", "", inspect.getdoc(hook) or "", ""]
    parts += ["## `Method`", "", inspect.getdoc(Method) or "", ""]
    signature = str(inspect.signature(Method.apply)).replace("'", "")
    parts += [f"### `apply{signature}`", "", inspect.getdoc(Method.apply) or "", ""]
    return "\n".join(parts)


def main() -> int:
    """Write or check."""
    page = render()
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/hooks.md is not current; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
