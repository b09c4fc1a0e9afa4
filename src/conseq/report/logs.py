"""The logs of a folder by what identifies them, so that a model meets the one that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.run.runner import data_record, digest
from conseq.study.logs import Logs


class KnownLogs:
    """The logs under a folder; each is read once to be known, and the last one that was read stays in memory.

    Args:
        root: The folder.
        beside: Logs that lie elsewhere, by name, such as those that a study prepared beside its runs.
    """

    def __init__(self, root: Path, beside: Mapping[str, Path] | None = None) -> None:
        self.root = root
        self._beside = dict(beside or {})
        self._logs = Logs(root)
        self._hashes: dict[str, frozenset[str]] = {}
        self._last: tuple[str, InteractionLog] | None = None

    def has(self, name: str) -> bool:
        """Gives whether a log is called ``name``."""
        return self._path(name) is not None

    def log(self, name: str) -> InteractionLog:
        """Gives the log called ``name``.

        Args:
            name: As the folder has it.

        Returns:
            The log.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged.
        """
        path = self._path(name)
        if path is None:
            raise FileNotFoundError(f"{self.root} has no log called {name!r}")
        if self._last is None or self._last[0] != name:
            self._last = None  # two of them need not fit into memory
            self._last = (name, read(str(path)))
        return self._last[1]

    def trained_on(self, name: str, wanted: str | None) -> str | None:
        """Gives what the log of a model is called.

        Args:
            name: What the model's folder says.
            wanted: The hash of its data; None: it is not known, and the name decides.

        Returns:
            ``name`` where that log has the hash, or else the first other log that has it; None where none has.
        """
        if self.has(name) and (wanted is None or wanted in self._hashes_of(name)):
            return name
        return None if wanted is None else next((one for one in self._names() if self._is(one, wanted)), None)

    def _path(self, name: str) -> Path | None:
        return self._logs.path(name) or self._beside.get(name)

    def _is(self, name: str, wanted: str) -> bool:
        with suppress(OSError, ValueError):  # what lies there may be no log at all, and no model need miss it
            return wanted in self._hashes_of(name)
        return False

    def _hashes_of(self, name: str) -> frozenset[str]:
        """Gives the hash of a log as it is stored, and the one that it has in a program that made it."""
        if name not in self._hashes:
            self._hashes[name] = frozenset()
            log = self.log(name)
            self._hashes[name] = frozenset({data_record(log)["hash"], digest(log)})
        return self._hashes[name]

    def _names(self) -> list[str]:
        entries = self.root.iterdir() if self.root.is_dir() else ()
        names = {entry.name if entry.is_dir() else entry.stem for entry in entries} | self._beside.keys()
        return sorted(name for name in names if self.has(name))
