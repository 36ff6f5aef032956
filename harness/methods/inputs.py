"""What the options of a method name, as one digest of its content."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.names import described, printable

if TYPE_CHECKING:
    from harness.methods.method import Method


def fingerprint(method: Method) -> str:
    """Return the digest of what the method's options name: its own account, or the content of every path option.

    Empty when the options name nothing.

    Raises:
        HarnessError: the method finds its inputs unusable.
    """
    own = getattr(method, "fingerprint", None)
    if own is not None:
        try:
            return str(own())
        except (Exception, SystemExit) as error:
            if isinstance(error, HarnessError):
                raise
            raise HarnessError(
                f"method '{printable(method.name)}' fails over its inputs: {described(error)}"
            ) from error
    paths = {o.name: getattr(method, o.name, None) for o in dataclasses.fields(method)}  # type: ignore[arg-type]
    named = [f"{name}={_content_digest(path)}\n" for name, path in paths.items() if isinstance(path, Path)]
    return hashlib.sha256("".join(named).encode()).hexdigest() if named else ""


def _content_digest(path: Path) -> str:
    from harness.models.identity import digest_files

    if not path.exists():
        raise HarnessError(f"no file or folder at '{printable(path)}'")
    if path.is_file():
        return digest_files([path])
    return digest_files([file for file in path.rglob("*") if file.is_file()], below=path)
