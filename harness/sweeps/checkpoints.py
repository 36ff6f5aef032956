"""``checkpoints: ckpt/step_{step}``: folders of one model at several steps, each a value of an axis."""

from __future__ import annotations

import fnmatch
import os
import re
import string
from collections.abc import Collection, Iterator
from pathlib import Path

from harness.names import printable
from harness.sweeps.axes import Axis, Combination
from harness.sweeps.located import Located

_SPEC = re.compile(r"0?\d{0,2}d?")
ADAPTER, MODEL = "adapter_config.json", "config.json"


def placeholders(template: Located) -> list[str]:
    """Return the names in braces. Raises ``HarnessError`` where there is none, or they cannot be read."""
    names = [name for _, name, _ in _parts(template) if name is not None]
    if not names:
        raise template.mistake(
            f"checkpoints '{printable(template.text)}' names one folder; say what differs in braces, as ckpt/step_{{step}}"
        )
    return list(dict.fromkeys(names))


def check_given(template: Located, names: Collection[str]) -> None:
    """Raise ``HarnessError`` where a name in braces is none of ``names``, which have values."""
    for name in placeholders(template):
        if name not in names:
            raise template.mistake(
                f"checkpoints has {{{name}}}, which has no values; say {name}: [100, 200] or {name}: '*'"
            )


def is_pattern(value: Located) -> bool:
    """Return whether a value says which of what lies on the disk is meant: ``*``, ``1*``."""
    return isinstance(value.value, str) and any(sign in value.value for sign in "*?[")


def found_axis(template: Located, name: str, pattern: Located, folder: Path) -> Axis:
    """Return the values of a name in braces for which a checkpoint lies on the disk, in the order of their numbers.

    Raises:
        HarnessError: none does.
    """
    globbed, regex = "", ""
    for before, part, _ in _parts(template, Path(template.text).expanduser().as_posix()):
        globbed += re.sub(r"([*?[])", r"[\1]", before) + ("*" if part is not None else "")
        again = f"(?P={name})" if f"(?P<{name}>" in regex else f"(?P<{name}>[^/]+)"
        regex += re.escape(before) + ("" if part is None else again if part == name else "[^/]+")
    start = Path(Path(globbed).anchor) if Path(globbed).is_absolute() else folder
    below = globbed.removeprefix(start.as_posix()) if Path(globbed).is_absolute() else globbed
    paths = [path for path in start.glob(below) if path.is_dir() or path.suffix == ".gguf"]
    texts = [path.as_posix() if start != folder else path.relative_to(folder).as_posix() for path in paths]
    matches = [match for text in texts if (match := re.fullmatch(regex, text))]
    values = {match[name] for match in matches if fnmatch.fnmatchcase(match[name], pattern.text)}
    if not values:
        raise pattern.mistake(
            f"no checkpoint lies at '{printable(template.text)}' with {name} like '{printable(pattern.text)}'"
        )
    found = (Located(text, pattern.where, text) for text in sorted(values, key=_natural))
    return Axis(tuple({name: value} for value in found), pattern.where)


def with_checkpoint(template: Located, settings: Combination, folder: Path) -> Combination:
    """Return what a cell sets with its checkpoint: the model, or where an adapter lies there, the adapter.

    Raises:
        HarnessError: nothing lies there, or a model is named besides.
    """
    text = _filled(template, settings)
    path = folder / Path(text).expanduser()
    if not path.exists():
        turn = ", but a link that leads in a circle or nowhere" if os.path.islink(path) else ""
        raise template.mistake(f"no checkpoint lies at '{printable(text)}'{turn}")
    is_adapter = (path / ADAPTER).is_file() and not (path / MODEL).is_file()
    name = "model_args.peft" if is_adapter else "model_args.pretrained"
    if (given := settings.get(name)) is not None:
        raise given.mistake(f"{name} is what checkpoints ('{printable(text)}') sets; leave it out")
    return settings | {name: Located(text, template.where, text)}


def _filled(template: Located, settings: Combination) -> str:
    """Return the template with what a cell sets in place of the names."""
    text = ""
    for before, name, spec in _parts(template):
        text += before
        if name is None:
            continue
        if name not in settings:
            raise template.mistake(f"checkpoints has {{{name}}}, which a cell does not set")
        value = settings[name].text or settings[name].mark
        if spec and not re.fullmatch(r"\d+", value):
            raise template.mistake(f"checkpoints has {{{name}:{spec}}}, and '{printable(value)}' is no whole number")
        text += format(int(value), spec) if spec else value
    return text


def _parts(template: Located, path: str | None = None) -> Iterator[tuple[str, str | None, str]]:
    """Yield of a template, or of its path, the text before each name in braces, the name, and how it is written (``06d``)."""
    if not isinstance(template.value, str):
        raise template.mistake("checkpoints takes the path of a folder with names in braces, as ckpt/step_{step}")
    try:
        parts = list(string.Formatter().parse(path or template.value))
    except ValueError as error:
        raise template.mistake(
            f"checkpoints '{printable(template.text)}' has braces that do not fit: {error}"
        ) from error
    for before, name, spec, conversion in parts:
        if name is not None and (
            not re.fullmatch(r"[A-Za-z_][\w.]*", name) or conversion or not _SPEC.fullmatch(spec or "")
        ):
            raise template.mistake(
                f"checkpoints '{printable(template.text)}' has braces without a plain name, as {{step}}"
            )
        yield before, name, spec or ""


def _natural(text: str) -> list[tuple[int, str]]:
    """Return what sorts step 20 before step 100."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]
