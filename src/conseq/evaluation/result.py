"""A judgement that knows its protocol, keeps every user's ranks, and can be stored and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from conseq.config import parse as parse_settings
from conseq.config import to_json
from conseq.data.files import atomic_write
from conseq.evaluation.metrics import Floats, Offsets, parse
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.slices import Slices

_FORMAT = 1
_SHOWN = frozenset({"HR@10", "NDCG@10", "HR@20", "NDCG@20", "MRR"})


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How one model ranked the held-out items of every user.

    Attributes:
        model: What was judged, as printed.
        protocol: How.
        users: int64 ``[B]``, rows in the log, in the order of the held-out part.
        ranks: float64 ``[N]``, the rank of each target; ``inf`` where it could not be recommended.
        offsets: int64 ``[B + 1]``; user ``i`` has the ranks ``offsets[i]:offsets[i + 1]``.
        n_items: Items in the catalogue.
        metrics: Means over users, by name (``HR@5``); ``Coverage@k`` and ``MeanPopularity@k`` where lists were made.
        floors: The same metrics of models that learn nothing, by model; empty where no training log was given.
        slices: By cut, by part: number of cases and metrics.
        counts: ``users``, ``targets``, ``items``; ``unreachable`` targets; targets whose rank the
            tie rule decided because other items have their score (``score_tied``).
        seconds: Wall time of scoring and ranking, floors not included.
        held_out: Digest of the users, histories and targets that were judged: equal for the same held-out part.
    """

    model: str
    protocol: Protocol
    users: npt.NDArray[np.int64]
    ranks: Floats
    offsets: Offsets
    n_items: int
    metrics: dict[str, float]
    seconds: float
    held_out: str
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    slices: Slices = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items() if name in _SHOWN)
        return f"<conseq.Evaluation of {self.model}: {self.protocol}; {len(self.users):,} users; {shown}>"

    def per_user(self, metric: str) -> Floats:
        """Gives the value of any metric of ranks for every user, float64 ``[B]``, also one that was not asked for."""
        return parse(metric).per_user(self.ranks, self.offsets)

    def value(self, metric: str) -> float:
        """Gives the mean of any metric of ranks over the users, also one that was not asked for."""
        return float(self.per_user(metric).mean())

    def record(self) -> dict[str, Any]:
        """Gives everything but the per-user arrays as JSON values; what ``--json`` prints."""
        return {
            "format": _FORMAT,
            "model": self.model,
            "protocol": to_json(self.protocol),
            "metrics": self.metrics,
            "floors": self.floors,
            "slices": self.slices,
            "counts": self.counts,
            "n_items": self.n_items,
            "seconds": self.seconds,
            "held_out": self.held_out,
        }

    def save(self, folder: Path | str) -> Path:
        """Writes the evaluation into ``folder``, in two files named after the protocol.

        ``evaluation-<protocol>.safetensors`` is the evaluation, per-user ranks included; the ``.json`` beside
        it is its record, to be read by people and programs.

        Args:
            folder: Usually the run's folder. It is created.

        Returns:
            The path of the safetensors file, which :meth:`load` reads.
        """
        record = json.dumps(self.record(), indent=2)
        path = Path(folder) / f"evaluation-{self.protocol.slug}.safetensors"
        arrays = {"users": self.users, "ranks": self.ranks, "offsets": self.offsets}
        atomic_write(path, to_safetensors(arrays, metadata={"record": record}))
        atomic_write(path.with_suffix(".json"), record + "\n")
        return path

    @classmethod
    def load(cls, path: Path | str) -> Evaluation:
        """Gives an evaluation that :meth:`save` wrote.

        Args:
            path: The safetensors file, or a folder that holds exactly one evaluation.

        Returns:
            The evaluation.

        Raises:
            ValueError: if the folder holds several evaluations, or the file is damaged or of another format; where
                there is none, the error is a ``FileNotFoundError``.
        """
        path = _one_evaluation(Path(path))
        try:
            with safe_open(path, framework="np") as stored:
                record = json.loads((stored.metadata() or {})["record"])
                arrays = {name: stored.get_tensor(name) for name in ("users", "ranks", "offsets")}
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged or no evaluation ({error}); evaluate again") from None
        found = record.pop("format", None)
        if found != _FORMAT:
            raise ValueError(f"{path} has format {found}; this version reads format {_FORMAT}: evaluate again")
        protocol = parse_settings(Protocol, record.pop("protocol"), source=str(path))
        return cls(protocol=protocol, **arrays, **record)


def _one_evaluation(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"no evaluation at {path}")
        return path
    found = sorted(path.glob("evaluation-*.safetensors"))
    if not found:
        raise FileNotFoundError(f"no evaluation in {path}: it has no file evaluation-*.safetensors")
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ValueError(f"{path} holds {len(found)} evaluations ({names}); name one of the files")
    return found[0]
