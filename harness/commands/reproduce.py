"""``harness reproduce``: run a record again on random documents, and say whether the same comes out."""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.commands import HELP
from harness.errors import HarnessError
from harness.names import printable
from harness.run.flags import add_method_flags, add_task_flags, key_values, to_run

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.run.reproducing import Reproduction
    from harness.run.run import Run

EPILOG = """\
The method is applied again (an identical earlier run's work is found, --no-cache trains anew), and so many random documents
are asked again and compared with the record's samples, answer by answer. Without samples, the scores are compared.
Exit status 0 means that it agrees. Model, tokenizer, method and files have to be there and be the same by their digests. Code
that the record alone names is not run: name it again, with the flag that the sentence says.
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help=HELP["reproduce"],
        description="Run a record again on random documents of its task, and say whether the same comes out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="file of records, results folder or board")
    parser.add_argument("--key", metavar="K", help="which record, by the beginning of its key")
    parser.add_argument("--task", metavar="TASK", help="which record, by its task")
    parser.add_argument("--method", metavar="NAME", help="which record, by its method")
    parser.add_argument("--run", metavar="NAME", help="which record, by the beginning of its run's name")
    parser.add_argument("--limit", "-L", type=int, default=50, metavar="N", help="documents to ask again (default 50)")
    parser.add_argument("--seed", type=int, metavar="S",
                        help="draws the documents; by default another each time, which is printed")  # fmt: skip
    parser.add_argument("--model_args", "-a", metavar="K=V",
                        help="where the model is here, such as pretrained=DIR; the rest is as recorded")  # fmt: skip
    parser.add_argument(
        "--method_args", metavar="K=V", help="where the method's files are here, such as train_file=FILE"
    )
    parser.add_argument("--metadata", nargs="+", metavar="K=V", help="of the tasks, where the record's names files")
    parser.add_argument("--gen_kwargs", nargs="+", metavar="K=V", help="of generation, where the record's names code")
    parser.add_argument("--include_path", action="append", metavar="DIR",
                        help="folder with task files, where the record's command names one: they are code")  # fmt: skip
    parser.add_argument("--batch_size", "-b", metavar="N", help="requests at a time (default as recorded)")
    parser.add_argument("--device", metavar="DEVICE", help="cuda, cuda:1, cpu, mps; by default the best there is")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--confirm_run_unsafe_code", action="store_true", help="for tasks that run generated code")
    parser.add_argument("--other_code", "--other-code", dest="other_code", action="store_true",
                        help="go on though the plugin's code is another than the record's")  # fmt: skip
    parser.add_argument("--no-cache", "--no_cache", dest="no_cache", action="store_true", help="apply the method anew")
    parser.add_argument("--output_path", "-o", type=Path, metavar="DIR", help="keep the files of the new run there")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="how to print what came out")
    return parser


def execute(args: argparse.Namespace) -> int:
    """Run again and print; 1 when it does not agree."""
    if args.limit < 1:
        raise HarnessError(f"--limit is {args.limit}; it has to be 1 or more documents")

    from harness.commands.reading import read
    from harness.run import reproducing

    reading = read(args.record)
    record, file = reproducing.choose(reading, key=args.key, task=args.task, method=args.method, run=args.run)
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    run = with_places_here(recorded_run(record), args)
    found = reproducing.reproduce(
        record,
        file,
        run,
        limit=args.limit,
        seed=seed,
        output=args.output_path,
        given=_given(args),
        takes_other_code=args.other_code,
    )
    if args.format == "json":
        print(json.dumps(_as_json(found), ensure_ascii=False, indent=2))
    else:
        _print(found)
    return 0 if found.agrees else 1


def recorded_run(record: Record) -> Run:
    """Return the run that a record's command describes; no shell sees it, and no file it names is read.

    Raises:
        HarnessError: the record has no command, or one that this version does not understand.
    """
    try:
        words = shlex.split(record.command)
    except ValueError:
        words = []
    if words[:2] != ["harness", "eval"]:
        raise HarnessError("the record does not say by which command it was made, so it cannot be run again")
    parser = _CommandParser(prog="harness eval", add_help=False, allow_abbrev=False)
    add_method_flags(parser)
    add_task_flags(parser)
    given = parser.parse_args(words[2:])
    if given.config is not None:
        raise HarnessError("the record's command names a --config file, which no command of a record does")
    # Code of others is run when the user says so, not when a record does.
    given.trust_remote_code = given.confirm_run_unsafe_code = None
    run = to_run(given)
    return replace(run, model_args={k: v for k, v in run.model_args.items() if k != "trust_remote_code"})


def with_places_here(run: Run, args: argparse.Namespace) -> Run:
    """Return ``run`` with model, files and device where the flags say they are."""
    from harness.arguments import parse_args

    if run.include_path and not args.include_path:
        named = " ".join(f"--include_path {printable(path)}" for path in run.include_path)
        raise HarnessError(
            f"the record's task files are in a folder of their own, and are code; if you trust it, add {named}"
        )
    model_args = dict(run.model_args) | parse_args(args.model_args, flag="--model_args")
    if args.trust_remote_code:
        model_args["trust_remote_code"] = True
    size = run.batch_size if args.batch_size is None else args.batch_size
    return replace(
        run,
        model_args=model_args,
        method_args=dict(run.method_args) | parse_args(args.method_args, flag="--method_args"),
        metadata=dict(run.metadata) | key_values(args.metadata or (), flag="--metadata"),
        gen_kwargs=dict(run.gen_kwargs) | key_values(args.gen_kwargs or (), flag="--gen_kwargs"),
        include_path=tuple(args.include_path or ()),
        batch_size=int(size) if str(size).isdigit() else size,
        device=args.device,
        no_cache=args.no_cache,
        confirm_run_unsafe_code=args.confirm_run_unsafe_code,
    )


def _given(args: argparse.Namespace) -> dict[str, set[str]]:
    """Return the names that the command line gives, by flag."""
    from harness.arguments import parse_args

    given = {
        f"--{name}": set(parse_args(getattr(args, name), flag=f"--{name}")) for name in ("model_args", "method_args")
    }
    several = {name: getattr(args, name) or () for name in ("metadata", "gen_kwargs")}
    return given | {f"--{name}": set(key_values(words, flag=f"--{name}")) for name, words in several.items()}


class _CommandParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise HarnessError(f"the command in the record is not understood: {printable(message)}")


def _print(found: Reproduction) -> None:
    record, agreement = found.record, found.found
    where = f"{printable(record.method.name)} on {printable(record.task.name)} with {printable(record.model.name)}"
    print(f"record     {record.key()}: {where}")
    print(f"documents  {len(found.documents)} of {found.of}, drawn with --seed {found.seed}")
    if agreement is not None:
        print(f"answers    {agreement.same_answers} of {agreement.docs} the same")
        print(f"scores     {agreement.same_scores} of {agreement.docs} the same")
        if agreement.largest_difference is not None:
            print(f"largest difference of two log-likelihoods  {agreement.largest_difference:.3g}")
        if agreement.rounded:
            print(f"of these, {agreement.rounded} have another likeliest answer by rounding alone")
    for name in found.then:
        now = f"{found.now[name]:.4f}" if name in found.now else "none"
        print(f"{printable(name)}  {found.then[name]:.4f} then, {now} now")
    if record.method.name != "baseline":
        print(
            "the method's work of an identical earlier run was reused"
            if found.reused
            else "the method was applied anew"
        )
    for name, (then, now) in found.versions.items():
        print(f"other {name}: {printable(then)} then, {printable(now)} now")
    print(f"tolerance  {found.tolerance.sentence()}")
    print(found.verdict)


def _as_json(found: Reproduction) -> dict[str, Any]:
    agreement = found.found
    return {
        "key": found.record.key(),
        "task": found.record.task.name,
        "method": found.record.method.name,
        "seed": found.seed,
        "documents": found.documents,
        "of": found.of,
        "agreement": None if agreement is None else vars(agreement),
        "then": found.then,
        "now": found.now,
        "versions": {name: {"then": pair[0], "now": pair[1]} for name, pair in found.versions.items()},
        "reused": found.reused,
        "tolerance": vars(found.tolerance),
        "agrees": found.agrees,
        "verdict": found.verdict,
    }
