"""The model that answers now, and the bundle that replaces it without a pause."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from conseq.serving.arguments import check_choice
from conseq.serving.bundle import Manifest, bundle_in, read_manifest
from conseq.serving.ranking import OnEmpty
from conseq.serving.recommender import Recommender

A_SWAP = 0.2
"""Seconds in which a save has surely put the new folder where the older one was."""
TRIAL = 500
"""Items of the longest history that a model is tried with."""

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory.

    Attributes:
        recommender: The model.
        manifest: Of the bundle that it was loaded from.
        at: When, in seconds since 1970.
    """

    recommender: Recommender
    manifest: Manifest
    at: float

    @property
    def name(self) -> str:
        """What tells this model from others: the first 12 digits of its weights' SHA-256."""
        return self.manifest.files["weights.safetensors"].sha256[:12]


class Live:
    """The bundle of a folder, loaded anew whenever another one stands there.

    A bundle that cannot take over (damaged, half copied, without counts that are asked for, with weights that are no
    numbers) is told of, and the older one goes on answering.

    Args:
        folder: The bundle.
        device: Where to compute.
        on_empty: What requests get for a history without a known item unless they say otherwise.
        look_every: Seconds between two looks; 0 never looks.
        say: Is told of every change, and of every bundle that cannot take over.

    Attributes:
        model: The model that answers now.
        trouble: Why the bundle that stands in the folder does not answer; None where it does.
        changes: How often another bundle took over.
        failures: How often one could not.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if it cannot answer, ``on_empty`` is no known value, or ``look_every`` is negative.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        on_empty: OnEmpty = "error",
        look_every: float = 10.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if not look_every >= 0:
            raise ValueError(f"look_every is {look_every!r}; it must be a number of seconds, 0 for never")
        check_choice("on_empty", on_empty, get_args(OnEmpty))
        self.folder = bundle_in(folder)
        self.device = device
        self.on_empty: OnEmpty = on_empty
        self.look_every = look_every
        self._seen = self._failed = _stamp(self.folder)
        self.model = self._load()
        self.trouble: str | None = None
        self.changes = self.failures = 0
        self._say = say
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look, in a thread of its own, where it has not begun."""
        if self.look_every and self._watcher is None:
            self._stopped = threading.Event()
            self._watcher = threading.Thread(
                target=self._watch, args=(self._stopped,), name="conseq-bundle", daemon=True
            )
            self._watcher.start()

    def stop(self) -> None:
        """Looks no more; a bundle that is being loaded is not waited for."""
        self._stopped.set()
        self._watcher = None

    def look(self) -> bool:
        """Loads the bundle where another one stands there than at the last look.

        Returns:
            Whether another model answers now.
        """
        stamp = _stamp(self.folder)
        if stamp == self._seen:
            return False
        try:
            if read_manifest(self.folder) == self.model.manifest:
                self._seen, self.trouble = stamp, None
                return False
            model = self._load()
        except (FileNotFoundError, ValueError) as error:
            self._seen = stamp  # the bundle's own fault, which no second look at it mends
            self._tell(stamp, str(error))
            return False
        except Exception as error:  # noqa: BLE001  (of the machine: no memory, perhaps; the next look tries again)
            self._tell(stamp, f"{self.folder}: {error}")
            return False
        self.model, self.trouble, self._seen = model, None, stamp
        self.changes += 1
        self._told(f"model {model.name} has taken over: {model.recommender.scorer.n_items} items")
        return True

    def _tell(self, stamp: Stamp, trouble: str) -> None:
        """Counts and tells of a bundle that cannot take over, once."""
        self.trouble = trouble
        if stamp != self._failed:
            self._failed = stamp
            self.failures += 1
            self._told(f"{trouble}; model {self.model.name} goes on answering")

    def _told(self, line: str) -> None:
        with contextlib.suppress(Exception):  # a standard error that is closed is no reason to look no more
            self._say(line)

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            if not _stamp(self.folder):
                # Perhaps a save is between moving the older folder away and putting the new one there.
                stopped.wait(A_SWAP)
            self.look()
            stopped.wait(self.look_every)

    def _load(self) -> Loaded:
        while True:
            manifest = read_manifest(self.folder)
            recommender = Recommender.load(self.folder, device=self.device)
            if read_manifest(self.folder) == manifest:
                break
        for name, values in recommender.scorer.named_parameters():
            if not bool(values.isfinite().all()):
                raise ValueError(
                    f"{self.folder}: weights {name!r} are not numbers; they are damaged or training diverged"
                )
        # What else may be wrong is found here and not by whoever asks first; it also warms the model up.
        ids = recommender.item_ids.ids
        for_nothing: OnEmpty = "popular" if self.on_empty == "popular" else "blank"
        recommender.recommend([ids[:1], ids[:TRIAL], []], k=1, exclude_seen=False, on_empty=for_nothing)
        return Loaded(recommender, manifest, time.time())


def _stamp(folder: Path) -> Stamp:
    """Gives what differs between two contents of a folder; nothing where there is no folder."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            one = path.stat()
            found.append((path.name, one.st_ino, one.st_size, one.st_mtime_ns))
    return tuple(found)
