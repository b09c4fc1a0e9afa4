"""A run that begins with the weights of a stored model instead of random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conseq.config import to_json
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Backbone, Encoder
from conseq.run.config import START, RunConfig, from_record, read_experiment
from conseq.run.folder import CONFIG
from conseq.serving.bundle import WEIGHTS, bundle_in, encoder_name, load_bundle, read_manifest

_TABLE = "items.weight"
# Vectors of the users of a log: in another one the same row is another user.
_OF_USERS = frozenset({"users", "known"})


def weights_of(path: Path) -> str:
    """Gives the SHA-256 of the weights in a bundle, which is what a run's record says of its start.

    Args:
        path: A bundle or a run's folder.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if what is there is none, or one of a newer version.
    """
    files = read_manifest(path).files
    if WEIGHTS not in files:
        raise ValueError(f"{path}: its manifest says nothing about {WEIGHTS}; the bundle must be saved again")
    return files[WEIGHTS].sha256


def encoder_of(path: Path) -> dict[str, Any]:
    """Gives the encoder of a bundle as a table of an experiment: its name and its settings.

    Args:
        path: A bundle or a run's folder.

    Returns:
        The table.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if what is there is none, or one of a newer version.
    """
    record = read_manifest(path).encoder
    return {"name": record.name, **record.settings}


def started(tables: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    """Gives the tables of an experiment that starts from a bundle: with its encoder, where they say nothing else.

    Args:
        tables: An experiment's tables by section.
        path: A bundle or a run's folder.

    Returns:
        The tables, and in the section ``start`` the bundle's weights; what the section held already stays, so that
        another bundle than a run's own is refused.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if what is there is none, or one of a newer version.
    """
    found = {section: dict(table) for section, table in tables.items()}
    stored, own = encoder_of(path), found.get("encoder", {})
    if own.get("name", stored["name"]) == stored["name"]:
        found["encoder"] = {**stored, **own}
    return {START: {"weights": weights_of(path)}, **found}


def check_made_by(run: Path | None, experiment: RunConfig, data_hash: str) -> None:
    """Refuses a start that is not the finished run of an experiment on a log.

    Args:
        run: The run's folder.
        experiment: What it must have run.
        data_hash: The hash of the log that it must have run on.

    Raises:
        ValueError: if it is another run, not finished, or none.
    """
    wanted = f"the experiment starts from the run of another one ({experiment.method_name}, {experiment.digest})"
    if run is None or not (run / CONFIG).exists() or not (run / "bundle").is_dir():
        raise ValueError(f"{wanted}; expected the folder of that run, finished, as start, found {run or 'none'}")
    found = from_record(read_experiment(run / CONFIG), source=str(run / CONFIG))
    if found.digest != experiment.digest:
        raise ValueError(f"{wanted}, and {run} holds another run ({found.method_name}, {found.digest})")
    own = json.loads((run / CONFIG).read_text(encoding="utf-8"))["data"]["hash"]
    if own != data_hash:
        raise ValueError(f"{wanted} on the same log, and {run} was run on another (its hash is {own[:12]}…)")


def begin(encoder: Encoder, settings: Backbone[Encoder], item_ids: Vocabulary, path: Path) -> int:
    """Writes a stored model's weights into a new one; items are found by their outside ids.

    Items that the stored model does not know keep their random vectors. So do users, where an encoder has a vector for
    each: it is another log's.

    Args:
        encoder: The new encoder; written into.
        settings: The settings that built it. They must be the stored ones, but for dropout.
        item_ids: Outside ids of its items.
        path: A bundle or a run's folder.

    Returns:
        How many of the items were known.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if the bundle is damaged, is of another encoder or of one with other settings, or knows none of the
            items.
    """
    folder = bundle_in(path)
    bundle = load_bundle(folder)
    check_same_encoder(settings, bundle.settings, source=str(folder))
    numbers = torch.tensor([bundle.item_ids.number(one) or 0 for one in item_ids.ids])
    rows = numbers.nonzero().squeeze(1)
    if not len(rows):
        raise ValueError(
            f"{folder}: it knows none of the log's {len(item_ids)} items, such as {item_ids.ids[0]!r}; its own are "
            f"called as {bundle.item_ids.ids[0]!r}"
        )
    own, stored = encoder.state_dict(), bundle.encoder.state_dict()
    with torch.no_grad():
        for name, value in stored.items():
            if name not in _OF_USERS | {_TABLE}:
                own[name].copy_(value)
        # Rows: padding, the items, the mask. A stored padding row is zero, as every one is.
        table = stored[_TABLE].to(own[_TABLE].device)
        own[_TABLE][rows + 1] = table[numbers[rows]]
        own[_TABLE][-1] = table[-1]
    return len(rows)


def check_same_encoder(settings: Backbone[Encoder], stored: Backbone[Encoder], *, source: str) -> None:
    """Refuses an encoder that cannot take over the weights of another.

    Args:
        settings: Of the new encoder.
        stored: Of the one whose weights it shall have; only its dropout may be another.
        source: What holds that, named in errors.

    Raises:
        ValueError: if they are of two kinds, or a setting differs; names it.
    """
    if type(settings) is not type(stored):
        raise ValueError(
            f"{source}: holds an encoder {encoder_name(stored)!r}, and the experiment's is {encoder_name(settings)!r}"
        )
    ours, theirs = to_json(settings), to_json(stored)
    for name, value in ours.items():
        if value != theirs[name] and "dropout" not in name:
            raise ValueError(
                f"{source}: its encoder has {name} = {theirs[name]!r}, and the experiment's {value!r}; only dropout "
                "may differ"
            )
