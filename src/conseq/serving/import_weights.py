"""Weights that research code published, as one of our encoders. No pickle is executed."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from conseq.data.log import InteractionLog
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.histories import named
from conseq.serving.layouts import LAYOUTS, Layout, LayoutName

# What torch raises on a file that is not, or no longer, what it wrote: there is no common class.
_UNREADABLE = (
    *(RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError),
    *(AssertionError, OSError, struct.error, SafetensorError),
)
DAMAGED = "damaged, or not a file of weights"


@dataclass(frozen=True, eq=False)
class Imported:
    """Published weights as an encoder of ours.

    Attributes:
        encoder: In evaluation mode.
        settings: Its settings. Dropout cannot be read from weights and is the default.
        report: What was read, assumed and ignored (JSON values).
    """

    encoder: Encoder
    settings: SASRecConfig
    report: dict[str, Any]


def import_weights(file: Path | str, *, layout: LayoutName, item_ids: Vocabulary, heads: int = 2) -> Imported:
    """Gives the encoder whose weights a file of research code holds.

    The number of layers, the widths and the length are read from the tensors. The number of heads leaves no
    trace in them; all papers of these families use 2. The row of an item in the file's table is its integer id.

    Args:
        file: A state dict, or a checkpoint that holds one under ``state_dict``, written by ``torch.save``; or
            a ``.safetensors`` file.
        layout: Whose names the tensors have.
        item_ids: The items of the log, in our order.
        heads: Attention heads.

    Returns:
        The encoder over the items of ``item_ids``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, would have to execute code, is of another layout, or if an item id
            has no row.
    """
    file = Path(file)
    tensors = read_tensors(file)
    names = _names(tensors, layout, file)
    ignored = _ignored(tensors, names, layout, file)
    found = {ours: tensors[theirs] for ours, theirs in names.items()}
    settings = _settings(found, LAYOUTS[layout], heads, file)
    table, unused = _table(found["items.weight"], item_ids, LAYOUTS[layout], file)
    with torch.random.fork_rng(devices=[]):
        encoder = settings(ItemTable(len(item_ids), settings.width))
    _load(encoder, found | {"items.weight": table}, names, file)
    report = {
        "layout": layout,
        "width": settings.width,
        "layers": settings.layers,
        "heads": heads,
        "heads_note": "not readable from weights; as given",
        "hidden": settings.hidden,
        "max_length": settings.max_length,
        "positions": settings.positions,
        "n_items": len(item_ids),
        "unused_rows": unused,
        "ignored_tensors": ignored,
    }
    return Imported(encoder.eval().requires_grad_(False), settings, report)


def import_bundle(
    file: Path | str, log: InteractionLog, out: Path | str, *, layout: LayoutName, heads: int = 2
) -> dict[str, Any]:
    """Writes a bundle of the weights in a file of research code.

    Args:
        file: See :func:`import_weights`.
        log: The log whose integer item ids are the rows of the file's table. The items' counts in it are stored too.
        out: The bundle to write.
        layout: Whose names the tensors have.
        heads: Attention heads.

    Returns:
        The report of the import.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if ``out`` is a file, or holds anything besides a bundle.
        ValueError: as in :func:`import_weights`.
        OSError: if the bundle cannot be written; an older one stays as it was.
    """
    imported = import_weights(file, layout=layout, item_ids=log.item_ids, heads=heads)
    with Path(file).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    source = {"file": Path(file).name, "sha256": digest, **imported.report}
    counts = np.bincount(log.items, minlength=log.n_items + 1)[1:]
    provenance = {"imported": source, "data": log.manifest}
    save_bundle(imported.encoder, imported.settings, log.item_ids, out, provenance, counts=counts)
    return {"bundle": str(out), **source}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Gives the tensors of a state dict by name.

    Args:
        file: See :func:`import_weights`.

    Returns:
        The tensors, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, would have to execute code, or holds no state dict.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with file.open("rb") as opened:
        content = _content(opened, file)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{file}: holds a {type(content).__name__}, expected a state dict: tensors by name")
    strange = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{file}: expected a state dict, tensors by name; {strange[0]!r} is not a tensor")
    return dict(content)


def _content(opened: BinaryIO, file: Path) -> object:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load(opened.read())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols, which are refused anyway
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file}: {_refusal(error)}") from None
    except _UNREADABLE as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"{file}: {DAMAGED} ({type(error).__name__}: {reason})") from None


def _refusal(error: pickle.UnpicklingError) -> str:
    """Gives why a pickle was refused, out of torch's message, which is mostly advice to run it anyway."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code is None:
        lines = [line.strip() for line in str(error).split("\n")]
        advice = ("Weights only load failed", "(1)", "(2)", "Please file", "Check the doc")
        reason = next((line for line in lines if line and not line.startswith(advice)), lines[0])
        return f"{DAMAGED} ({reason})"
    return (
        f"besides tensors it needs {code[1]}, which would execute code from the file, so it was refused; save the "
        'state dict alone where its classes are known: torch.save(checkpoint["state_dict"], path)'
    )


def _names(tensors: Mapping[str, Tensor], layout: LayoutName, file: Path) -> dict[str, str]:
    """Gives the file's name of each tensor of the encoder, by ours."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    chosen = LAYOUTS[layout]
    names = chosen.outer_names()
    n_layers = chosen.layer_count(tensors)
    for number in range(n_layers):
        names |= chosen.layer_names(number)
    missing = [theirs for theirs in names.values() if theirs not in tensors]
    if missing or not n_layers:
        likely = _looks_like(tensors)
        if likely and likely != layout:
            raise ValueError(
                f"{file}: its tensors are named as in layout {likely}, not {layout}; use --layout {likely}"
            )
        lacking = ", ".join(missing[:5]) or f"{chosen.layer}.0.*"
        there = ", ".join(sorted(tensors)[:5])
        raise ValueError(f"{file}: layout {layout} needs {lacking}, which the file does not have; it has {there}, …")
    return names


def _looks_like(tensors: Mapping[str, Tensor]) -> LayoutName | None:
    fitting = (name for name, layout in LAYOUTS.items() if layout.items in tensors and layout.layer_count(tensors))
    return next(fitting, None)


def _ignored(tensors: Mapping[str, Tensor], names: Mapping[str, str], layout: LayoutName, file: Path) -> dict[str, str]:
    """Gives the tensors that recommendations do not read, and whose they are; refuses what nobody knows."""
    rest = sorted(set(tensors) - set(names.values()))
    owners = {name: LAYOUTS[layout].unused_by(name) for name in rest}
    strange = [name for name, owner in owners.items() if owner is None]
    if strange:
        raise ValueError(
            f"{file}: {named(strange)} not part of this encoder, so its scores might depend on what would be lost"
        )
    return {name: owner for name, owner in owners.items() if owner is not None}


def _settings(found: Mapping[str, Tensor], layout: Layout, heads: int, file: Path) -> SASRecConfig:
    for ours in ("items.weight", "positions.weight", "blocks.0.feed_forward.inner.weight"):
        if found[ours].dim() != 2:
            raise ValueError(f"{file}: the tensor of {ours} has {found[ours].dim()} dimensions, expected 2")
    width = found["items.weight"].shape[1]
    if heads < 1 or width % heads:
        raise ValueError(f"{file}: a width of {width} cannot be shared by {heads} heads; use --heads")
    return SASRecConfig(
        width=width,
        layers=sum(name.endswith(".norm1.weight") for name in found),
        heads=heads,
        max_length=found["positions.weight"].shape[0],
        hidden=found["blocks.0.feed_forward.inner.weight"].shape[0],
        block="bert",
        positions=layout.counted_from,
    )


def _table(rows: Tensor, item_ids: Vocabulary, layout: Layout, file: Path) -> tuple[Tensor, int]:
    """Gives the item table in our order, and the number of the file's item rows that no item of the log has."""
    last = rows.shape[0] - 1
    at = [_row(one, last - layout.mask_row, file) for one in item_ids.ids]
    # Where the mask may be missing, the last row is the mask only if it is no item's.
    has_mask = last not in at
    mask = rows[last] if has_mask else torch.zeros_like(rows[last])
    table = torch.cat([rows[:1], rows[at], mask[None]])
    return table, last - has_mask - len(at)


def _row(one: str, last: int, file: Path) -> int:
    if not (one.isascii() and one.isdecimal() and str(int(one)) == one):
        raise ValueError(
            f"item id {one!r} of the log is not an integer; the rows of the table in {file} belong to the integer "
            "ids of the log that it was trained on"
        )
    row = int(one)
    if not 1 <= row <= last:
        raise ValueError(
            f"item id {one} of the log has no row: the table in {file} has items 1..{last}; is this the log that the "
            "weights were trained on?"
        )
    return row


def _load(encoder: Encoder, found: Mapping[str, Tensor], names: Mapping[str, str], file: Path) -> None:
    expected = encoder.state_dict()
    for ours, tensor in found.items():
        theirs = names[ours]
        if tensor.shape != expected[ours].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[ours].shape)}"
            raise ValueError(f"{file}: {theirs} has shape {shapes}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{file}: {theirs} has values that are not finite numbers")
    encoder.load_state_dict(dict(found))
