"""The text files of the S3Rec family: a user and then the user's items in order, one user per line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from conseq.data.batches import Batch, Source
from conseq.data.blocks import BLOCK_BYTES, CR_ENDS, RECORD_BYTES, Block, blocks, opened


def open_s3rec_text(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Source:
    """Gives the interactions of a ``user item item ...`` file. There are no times: the order of the items is the order.

    Fields stand apart by spaces or tabs, so ids hold neither.

    Args:
        path: The file, gzip or not.
        block_bytes: Bytes to hold in memory at once.

    Returns:
        The source.

    Raises:
        ValueError: if the first line is blank, or has tabs, commas or semicolons but no spaces: it is another format;
            or if lines end in CR alone.
    """
    with opened(path) as file:
        first = file.readline(RECORD_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
    if not first:
        raise ValueError(f"{path}: the file is empty or starts with a blank line; expected 'user item item ...'")
    if b"\r" in first:
        raise ValueError(f"{path}: {CR_ENDS}")
    if b" " not in first and any(mark in first for mark in (b"\t", b",", b";")):
        raise ValueError(
            f"{path}: the first line does not read 'user item item ...'; say what the file is with format=, "
            "such as format='csv' or format='tsv' (--format in a shell)"
        )
    return Source(str(path), "s3rec", None, _batches(path, block_bytes))


def _batches(path: Path, block_bytes: int) -> Iterator[Batch]:
    lines_of_users: dict[str, int] = {}
    with opened(path) as file:
        for block in blocks(file, str(path), size=block_bytes):
            problem = block.bad_utf8()
            if problem is not None:
                raise ValueError(f"{path}, {problem}; convert the file to UTF-8")
            fields = pl.Series(_single_spaced(block, str(path)).decode().split("\n")[:-1]).str.split(" ")
            lengths = fields.list.len().to_numpy().astype(np.int64)
            if lengths.min() < 2:
                row = int(lengths.argmin())
                found = f"user {fields[row][0]!r} has no items" if fields[row][0] else "the line is blank"
                raise ValueError(f"{path}, line {block.line + row}: {found}; expected 'user item item ...'")
            users = fields.list.first()
            _check_new(users, lines_of_users, block, str(path))
            rows = np.repeat(np.arange(len(users)), lengths - 1)
            yield Batch(users.gather(rows), fields.list.slice(1).explode(), None, _place_of(block, rows))


def _place_of(block: Block, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Callable[[int], str]:
    def place(row: int) -> str:
        return f"line {block.line + int(rows[row])}"

    return place


def _single_spaced(block: Block, source: str) -> bytes:
    """Gives the same lines with one space between fields and none around them."""
    data = block.data
    if b"\r" in data:
        bare = re.search(rb"\r(?![\r \t]*\n)", data)
        if bare is not None:
            raise ValueError(f"{source}, line {block.line_of(bare.start())}: {CR_ENDS}")
        data = data.replace(b"\r", b" ")
    data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" ")


def _check_new(users: pl.Series, lines_of_users: dict[str, int], block: Block, source: str) -> None:
    """Notes the line of each user; refuses a user who has a line already."""
    for line, user in enumerate(users.to_list(), block.line):
        earlier = lines_of_users.setdefault(user, line)
        if earlier != line:
            raise ValueError(
                f"{source}: user {user!r} stands on line {earlier} and on line {line}; one line must hold all items of "
                "a user (for one interaction per line, add a header and say format='csv' or format='tsv', in a shell "
                "--format csv or tsv)"
            )
