"""The command line: parse, call one command, turn mistakes into one sentence."""

from __future__ import annotations

import argparse
import functools
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from harness.commands import FILES, HELP
from harness.errors import HarnessError, Terminated
from harness.names import printable
from harness.redaction import protect_output, redact
from harness.threads import wait_passively

STOPS = ("SIGTERM", "SIGHUP")
EXAMPLES = """\
examples:
  harness plugins                           # what is installed
  harness plugins stochastok                # its methods, options and tasks
  harness eval --tasks langgame --limit 20  # the embedded default model as it is
  harness eval --plugin stochastok --method_args steps=50 --with_baseline \\
      --tasks langgame,tokenization_robustness
  harness eval --plugin stochastok --model_args pretrained=./my-model,dtype=bfloat16 --quantization nf4 --tasks arc_easy
  harness show results --run stochastok     # look at a run and its documents
  harness compare stochastok@baseline       # which is better, by how much, is it noise
  harness verify results                    # do the scores follow from the samples
  harness reproduce results --key 4fb67daa  # run a record again on 50 random documents
  harness leaderboard results --output board.html
  harness publish results --dry-run         # what would be published, where
  harness apply --plugin stochastok --method_args steps=50 --output my-model-stochastok
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when everything asked for is done, 1 when something of it is bad, 2 for a mistake of the user, 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character shows its code
    protect_output()
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
    # Deprecations inside other packages are not the user's business.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|datasets)\b")
    # Batches are encoded by one process here; lm-eval's own command line sets this too.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wait_passively()
    _stop_in_order()
    try:
        return int(args.execute(args))
    except HarnessError as error:
        print(f"harness: {redact(str(error))}", file=sys.stderr)
        if args.debug:
            raise
        return error.exit_status
    except KeyboardInterrupt as stop:
        print("\nharness: stopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 128 + stop.signum if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        # Whoever read the output has enough; 141 is what a program that is ended by that leaves.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _stop_in_order() -> None:
    """Let the signals of a cluster or a closed terminal stop a run as Ctrl-C does, unless they are ignored (nohup)."""
    _leave_children_alone()
    for name in STOPS:
        number = getattr(signal, name, None)
        with suppress(ValueError):  # not the main thread
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _terminate)


@functools.cache
def _leave_children_alone() -> None:
    """Let forked children of this process end as the system has it: a pool ends its workers by a signal."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_put_back)


def _put_back() -> None:
    for name in STOPS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _terminate:
            signal.signal(number, signal.SIG_DFL)


def _terminate(signum: int, _: object) -> None:
    raise Terminated(signum)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; nothing heavy is imported for it.

    Args:
        command: the one that is called; the others get no flags then, and their files are not imported.
    """
    parser = _Parser(
        prog="harness",
        description="Evaluate papers about tokens: take an lm_eval command, add --plugin NAME, read the difference.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the harness's version number and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, file in FILES.items():
        if command not in (None, name):
            commands.add_parser(name, help=HELP[name])
            continue
        module = import_module(f"harness.commands.{file}")
        subparser = module.add(commands)
        subparser.add_argument("--debug", action="store_true", help="show the cause of an error, with its traceback")
        subparser.set_defaults(execute=module.execute)
    return parser


class _Version(argparse.Action):
    """Show the version, read from package metadata only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import harness

        print(f"token-harness {harness.__version__}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser whose own errors are one line like all others, control characters made visible."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"harness: {printable(redact(message))} (see {self.prog} --help)\n")


if __name__ == "__main__":
    sys.exit(main())
