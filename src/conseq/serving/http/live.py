"""The model that answers now, and the bundle that replaces it without a pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from conseq.serving.arguments import check_choice
from conseq.serving.bundle import Manifest, read_manifest
from conseq.serving.ranking import OnEmpty
from conseq.serving.recommender import Recommender

A_SWAP = 0.2
"""Seconds in which a save has surely put the new folder where the older one was."""


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

    A bundle that cannot take over (damaged, half copied, without counts that are asked for, with scores that are no
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
        self.folder = folder
        self.device = device
        self.on_empty: OnEmpty = on_empty
        self.look_every = look_every
        self.model = self._load()
        self.trouble: str | None = None
        self.changes = self.failures = 0
        self._say = say
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look, in a thread of its own."""
        self._stopped.clear()
        if self.look_every and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="conseq-bundle", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None

    def look(self) -> bool:
        """Loads the bundle where it is another one than the model that answers.

        Returns:
            Whether another model answers now.
        """
        try:
            if read_manifest(self.folder) == self.model.manifest:
                self.trouble = None
                return False
            model = self._load()
        except Exception as error:  # noqa: BLE001  (whatever it is, the model that is there goes on answering)
            self._tell(str(error))
            return False
        self.model, self.trouble = model, None
        self.changes += 1
        self._say(f"model {model.name} has taken over: {model.recommender.scorer.n_items} items")
        return True

    def _tell(self, trouble: str) -> None:
        """Counts and tells of a bundle that cannot take over, once for each reason."""
        if trouble != self.trouble:
            self.failures += 1
            self._say(f"{trouble}; model {self.model.name} goes on answering")
        self.trouble = trouble

    def _watch(self) -> None:
        while not self._stopped.wait(self.look_every):
            try:
                read_manifest(self.folder)
            except (OSError, ValueError):
                # Perhaps a save is between moving the older folder away and putting the new one there.
                self._stopped.wait(A_SWAP)
            self.look()

    def _load(self) -> Loaded:
        while True:
            manifest = read_manifest(self.folder)
            recommender = Recommender.load(self.folder, device=self.device)
            if read_manifest(self.folder) == manifest:
                break
        # Weights that are no numbers are found here and not by whoever asks first; it also warms the model up.
        recommender.recommend([[recommender.item_ids.ids[0]], []], k=1, on_empty=self._kind_for_nothing())
        return Loaded(recommender, manifest, time.time())

    def _kind_for_nothing(self) -> OnEmpty:
        return "popular" if self.on_empty == "popular" else "blank"
