"""A text file in blocks of whole records, so that no file has to fit in memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from conseq.data.files import naming

BLOCK_BYTES = 1 << 22
RECORD_BYTES = 1 << 26

CR_ENDS = "the line ends are CR; convert them to LF, as with: tr '\\r' '\\n' < old > new"

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _QUOTE = ord("\n"), ord('"')


@dataclass(frozen=True)
class Block:
    """Whole records of a text file.

    Attributes:
        data: The records; each ends with a newline.
        line: The number of the first line, from 1.
    """

    data: bytes
    line: int

    @property
    def after(self) -> int:
        """The number of the line that follows the block."""
        return self.line + self.data.count(b"\n")

    def line_of(self, place: int) -> int:
        """Gives the number of the line that holds byte ``place``."""
        return self.line + self.data.count(b"\n", 0, place)

    def bad_utf8(self) -> str | None:
        """Gives what is wrong where the block is not UTF-8, with the line."""
        try:
            self.data.decode()
        except UnicodeDecodeError as error:
            return f"line {self.line_of(error.start)}: byte 0x{self.data[error.start]:02x} is not UTF-8"
        return None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Gives the bytes of a file, decompressed where it is gzip.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        OSError: if it cannot be opened or read.
        ValueError: if gzip data break off or are corrupt.
    """
    with naming(path), path.open("rb") as raw:
        # A look ahead, because a pipe cannot be read again.
        packed = raw.peek(len(_GZIP)).startswith(_GZIP)
        with gzip.GzipFile(fileobj=raw) if packed else nullcontext(raw) as file:
            try:
                yield cast("BinaryIO", file)
            except EOFError:
                raise ValueError(f"{path}: the gzip data break off; the file is truncated, get it again") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{path}: corrupt gzip data ({error}); get the file again") from None


def blocks(
    file: BinaryIO, source: str, *, quotes: bool = False, size: int = BLOCK_BYTES, longest: int = RECORD_BYTES
) -> Iterator[Block]:
    """Gives a text file as blocks of whole records. Blank lines at its end are left out.

    Args:
        file: The open file.
        source: Its name, for errors.
        quotes: A newline between double quotes does not end a record.
        size: Bytes to read at a time; a block has at most twice as many, or one record.
        longest: The most bytes that one record may have.

    Yields:
        The blocks, in order; none for an empty file.

    Raises:
        ValueError: if a record is too long, or a quote is never closed.
    """
    rest, line = b"", 1
    for fresh, last in _reads(file, size):
        data = rest + fresh
        if last:
            data = data.rstrip(b"\r\n") + b"\n" if data.strip(b"\r\n") else b""
        end = _last_end(data, quotes=quotes)
        if last and end != len(data):
            opening = line + data.count(b"\n", 0, end)
            raise ValueError(f"{source}, line {opening}: a quote opened in this record is never closed")
        if len(data) - end > longest:
            broken = line + data.count(b"\n", 0, end)
            raise ValueError(f"{source}, line {broken}: a record of more than {longest} bytes; is a quote missing?")
        if end:
            block = Block(data[:end], line)
            line = block.after
            yield block
        rest = data[end:]


def unquoted(data: bytes, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Gives the ``places`` in ``data`` that do not stand between double quotes; ``data`` starts outside of quotes."""
    quotes = np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)
    outside: npt.NDArray[np.bool_] = np.searchsorted(quotes, places) % 2 == 0
    return places[outside]


def _reads(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Gives the file piece by piece, without a byte order mark, and whether the piece is the last."""
    ahead = file.read(size).removeprefix(_BYTE_ORDER_MARK)
    while ahead:
        piece, ahead = ahead, file.read(size)
        yield piece, not ahead


def _last_end(data: bytes, *, quotes: bool) -> int:
    """Gives the place after the last newline that ends a record; 0 where there is none."""
    if not quotes or b'"' not in data:
        return data.rfind(b"\n") + 1
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    ends = unquoted(data, newlines)
    return int(ends[-1]) + 1 if ends.size else 0
