"""Members of zip files, also of those compressed by Zstandard, read within bounds and never unpacked to disk."""

from __future__ import annotations

import importlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import HarnessError
from harness.names import printable
from harness.plain_files import open_plain

ZSTANDARD = 93
MOST_MEMBERS = 1_000_000
# Of one member, uncompressed; and of what compressed data may be, so that no bomb is blown up.
MOST_MEMBER_BYTES = 500_000_000
_LOCAL_HEADER = 30
_ENCRYPTED = 1


class Members:
    """The members of an open zip file, by name."""

    def __init__(self, file: BinaryIO, archive: zipfile.ZipFile) -> None:
        self._file, self._archive = file, archive
        self.names = archive.namelist()

    def read(self, name: str) -> bytes:
        """Return the content of a member; of two with one name the last.

        Raises:
            HarnessError: there is none, it is damaged, too large, or compressed in a way that cannot be read here.
        """
        try:
            info = self._archive.getinfo(name)
        except KeyError as error:
            raise HarnessError(f"has no {printable(name)} in it") from error
        if info.file_size > MOST_MEMBER_BYTES or info.flag_bits & _ENCRYPTED:
            raise HarnessError(
                f"holds {printable(name)}, which is encrypted or larger than {MOST_MEMBER_BYTES / 1e6:.0f} MB"
            )
        try:
            is_ours_to_do = info.compress_type == ZSTANDARD and not hasattr(
                zipfile, "ZIP_ZSTANDARD"
            )  # Python before 3.14
            content = self._zstandard(info) if is_ours_to_do else self._archive.read(info)
        except (
            OSError,
            ValueError,
            EOFError,
            struct.error,
            zlib.error,
            zipfile.BadZipFile,
            NotImplementedError,
        ) as error:
            raise HarnessError(f"holds {printable(name)}, which is damaged ({printable(error)[:120]})") from error
        return content

    def _zstandard(self, info: zipfile.ZipInfo) -> bytes:
        library = _library()
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER)
        name, extra = struct.unpack("<HH", header[26:30])
        self._file.seek(info.header_offset + _LOCAL_HEADER + name + extra)
        compressed = self._file.read(min(info.compress_size, MOST_MEMBER_BYTES))
        reader = library.ZstdDecompressor().stream_reader(compressed, read_across_frames=True)
        try:
            content: bytes = reader.read(info.file_size + 1)
        except library.ZstdError as error:
            raise ValueError(str(error)) from error
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise ValueError("its checksum is another")
        return content


@contextmanager
def opened(path: Path) -> Iterator[Members]:
    """Open a zip file.

    Raises:
        HarnessError: it cannot be read, or is no whole zip file.
    """
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            if len(archive.filelist) > MOST_MEMBERS:
                raise HarnessError(f"holds more than {MOST_MEMBERS:,} members")
            yield Members(file, archive)
    except zipfile.BadZipFile as error:
        raise HarnessError("is no whole zip file: it was cut, or its run was killed or still writes it") from error
    except (OSError, struct.error) as error:
        raise HarnessError(f"cannot be read ({printable(error)[:120]})") from error


def _library() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise HarnessError(
            "is compressed by Zstandard, as inspect writes logs; `pip install zstandard` reads it, and `inspect log convert --to "
            "json` gives a log that needs nothing"
        ) from error
