"""Records: what a finished run found, one JSON object per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from conseq.analyses import analysis
from conseq.data.files import atomic_write
from conseq.evaluation.result import Evaluation
from conseq.run.config import SECTIONS, START, RunConfig, from_record
from conseq.run.folder import read_config
from conseq.run.provenance import analysis_hash, code_hash
from conseq.study.asked import outdated
from conseq.study.checks import ROUNDING, contradictions
from conseq.study.equal_code import EQUAL_CODE, entries_of, reached, read_equal_code
from conseq.study.top_ranks import KEY as RANKS
from conseq.study.top_ranks import packed, unpacked

if sys.platform != "win32":
    import fcntl

Record = dict[str, Any]
Identity = tuple[str, str, str]
History = Literal["exclude", "keep"]

REQUIRED = (
    "study", "row",
    "method", "variant", "preset", "encoder", "loss", "instances", "dataset", "history", "split", "seed", "epochs",
    "seconds", "commit", "config_hash", "data_hash", "data", "versions", "metrics", "floors", "curve", "both",
    "code_hash", "best_epoch", "config", "analyses",
)  # fmt: skip

CODE_CHANGED = "the code changed"

# What a record keeps of a slice.
_OF_RANKS = {"HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"}
_OF_SLICES = {"cases", "HR@10", "NDCG@10", "HR@20", "NDCG@20"}


@dataclass(frozen=True)
class Told:
    """What a run's folder does not know of itself.

    Attributes:
        study: The table that asked for it.
        row: The row's name.
        variant: How it differs from its method.
        preset: Whose settings.
        dataset: The name of the log's folder.
        history: The protocol whose metrics stand first.
    """

    study: str
    row: str
    variant: str
    preset: str
    dataset: str
    history: History


def record_of(folder: Path | str, told: Told) -> Record:
    """Gives the record of a finished run.

    Args:
        folder: The run's folder.
        told: Where it belongs.

    Returns:
        The record. Its metrics under both treatments of the history are in ``both``, those under ``history`` also
        in ``metrics``.

    Raises:
        ValueError: if the run is not finished, or its epochs are not all there; names file and line.
    """
    folder = Path(folder)
    written = read_config(folder)
    both = {one.protocol.history: one for one in _evaluations(folder)}
    if set(both) != {"exclude", "keep"}:
        raise ValueError(f"{folder} holds no finished run: found evaluations with history {sorted(both) or 'none'}")
    lines = _epochs(folder / "metrics.jsonl")
    tables = {name: written[name] for name in (*SECTIONS, START) if name in written}
    config = from_record(tables, source=str(folder))
    metric = config.training.metric
    own = both[told.history]
    code, ranks = written["code"], packed(both)
    return {
        **{name: getattr(told, name) for name in ("study", "row")},
        "method": config.method_name,
        "variant": told.variant,
        "preset": told.preset,
        "encoder": config.encoder_name,
        "loss": getattr(config.method, "loss", ""),
        "instances": config.training.instances,
        "dataset": told.dataset,
        "history": told.history,
        "split": own.protocol.slicing,
        "ties": own.protocol.ties,
        "seed": config.training.seed,
        "epochs": len(lines),
        "best_epoch": lines[-1].get("best_epoch", 0) if lines else 0,
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "validation_seconds": round(sum(line.get("validation_seconds", 0.0) for line in lines), 1),
        "commit": code[-1]["commit"],
        "code_hash": code[-1]["hash"] if len({one["hash"] for one in code}) == 1 else "mixed",
        "config_hash": config.digest,
        "data_hash": written["data"]["hash"],
        "data": {name: written["data"][name] for name in ("users", "items", "interactions")},
        "versions": code[-1].get("versions", written["versions"]),
        "machine": "; ".join(dict.fromkeys(one["machine"] for one in code)),
        "metrics": _rounded(own.metrics),
        "floors": {name: _rounded(values) for name, values in own.floors.items()},
        "both": {history: _of(one) for history, one in sorted(both.items())},
        "curve": [_point(line, metric) for line in lines],
        "config": tables,
        "analyses": {},
        **({} if ranks is None else {RANKS: ranks}),
    }


def metrics_shown(*, several: bool) -> tuple[str, ...]:
    """Gives what tables show where a paper's cells do not decide it.

    Args:
        several: Whether a case has several targets, as those of held-out users have (ComiRec's and MCLSR's metrics).

    Returns:
        Metrics.
    """
    if several:
        return ("Recall@20", "NDCG@20", "HR@20", "Recall@50", "NDCG@50", "HR@50")
    return ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20")


def but_seed(config: Mapping[str, Any]) -> str:
    """Gives an experiment's settings without its seed and its device: equal for runs that are averaged.

    Args:
        config: Tables by section; what no experiment has counts for nothing.

    Returns:
        Text.
    """
    training = {name: value for name, value in config["training"].items() if name not in {"seed", "device"}}
    kept = {name: config[name] for name in ("method", "encoder", "split", START) if name in config}
    if "training" in kept.get(START, {}):
        kept[START] = json.loads(but_seed(kept[START]))
    return json.dumps({**kept, "training": training}, sort_keys=True)


def is_finished(folder: Path) -> bool:
    """Whether a run's folder holds a finished run."""
    return (folder / "bundle").is_dir() and len(list(folder.glob("evaluation-test-*.json"))) >= 2


def read_records(root: Path | str) -> list[Record]:
    """Gives all records under a folder (or of one file), in the order of the files' names and lines.

    Args:
        root: A folder, or a ``.jsonl`` file.

    Returns:
        The records.

    Raises:
        ValueError: on a line that is not a record; names file and line.
        FileNotFoundError: if there is no such file or folder.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; expected a folder of records, or a .jsonl file")
    files = sorted(root.rglob("*.jsonl")) if root.is_dir() else [root]
    # A file lies in results/<paper>/; what the project declares of its code is two folders above it.
    places = [root, *root.resolve().parents[:2]]
    equal = read_equal_code(
        next((one / EQUAL_CODE for one in places if (one / EQUAL_CODE).is_file()), root / EQUAL_CODE)
    )
    records = [record for file in files for record in _lines(file)]
    return [
        {**record, "equal_code": sorted({one for made in _made_by(record) for one in reached(made, equal)})}
        for record in records
    ]


def declare_equal_code(root: Path, why: str, *, method: str | None = None) -> int:
    """Declares that the code as it is gives the results of every record that it made stale.

    That is right for a change that only made something faster, with evidence; it is not for one that moves results.

    Args:
        root: The folder of the records.
        why: The change and the evidence.
        method: Only records of this method; None: of all.

    Returns:
        How many pairs of hashes were added.

    Raises:
        ValueError: if no reason is given.
    """
    if not why.strip():
        raise ValueError("say why: what changed, and what shows that results are the same")
    path = root / EQUAL_CODE
    with alone(path):
        entries = entries_of(path)
        own = [record for record in read_records(root) if method in (None, record["method"])]
        pairs = {
            (record["code_hash"], code_hash(from_record(record["config"], source="a record")))
            for record in own
            if record["code_hash"] != "mixed" and stale(record) == CODE_CHANGED
        }
        pairs |= {pair for record in own for pair in _analyses(record)}
        entries += [{"from": earlier, "to": later, "why": why} for earlier, later in sorted(pairs)]
        atomic_write(path, json.dumps(entries, indent=1) + "\n")
    return len(pairs)


def write_records(path: Path | str, records: Iterable[Record]) -> Path:
    """Adds records to a file; one of the same experiment, seed and data takes the earlier one's place.

    Processes that add to the same file wait for one another: none loses what another wrote.

    Args:
        path: ``results/<study>/<name>.jsonl``.
        records: The new ones.

    Returns:
        The file.

    Raises:
        ValueError: if a record has no room for what is required, or metrics that cannot be.
    """
    path = Path(path)
    with alone(path):
        kept = {identity(one): one for one in (_lines(path) if path.exists() else ())}
        for record in records:
            check(record, source=str(path))
            kept.pop(identity(record), None)  # the newest stands last
            kept[identity(record)] = {name: value for name, value in record.items() if name != "equal_code"}
        atomic_write(path, "".join(json.dumps(one, sort_keys=True) + "\n" for one in kept.values()))
    return path


def identity(record: Mapping[str, Any]) -> Identity:
    """Gives what makes two records ones of the same run: the experiment (with its seed), the data and their name."""
    return str(record["config_hash"]), str(record["data_hash"]), str(record["dataset"])


def check(record: Mapping[str, Any], *, source: str) -> None:
    """Refuses a record that lacks something, contradicts itself or has metrics that cannot be.

    Args:
        record: The record.
        source: Where it came from, named in errors.

    Raises:
        ValueError: naming the key, or the metric and its bounds.
    """
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise ValueError(f"{source}: the record lacks {', '.join(missing)}")
    for wrong in contradictions(record):
        raise ValueError(f"{source}: {wrong}")
    if RANKS in record:
        _check_ranks(record, source)


def _check_ranks(record: Mapping[str, Any], source: str) -> None:
    """Refuses ranks that do not give the metrics beside them."""
    for history in ("exclude", "keep"):
        found = unpacked(record, history)
        for metric in _OF_RANKS & found.metrics.keys():
            told, expected = found.metrics[metric], found.value(metric)
            if abs(told - expected) > ROUNDING:
                raise ValueError(
                    f"{source}: {metric} is {told} (history {history}), but its ranks by user give {expected:.6f}"
                )


def stale(record: Mapping[str, Any], config: RunConfig | None = None) -> str:
    """Gives why a record no longer tells what the code would find; empty where it does.

    Args:
        record: The record.
        config: The experiment as its file says it now; None: only the code is compared.

    Returns:
        The reason, or an empty string. Code that is declared equal (:func:`declare_equal_code`) is no reason.
    """
    if config is None:
        try:
            config = from_record(record["config"], source="the record")
        except ValueError:
            return "its settings are no longer understood"
    if config.digest != record["config_hash"]:
        return "the experiment changed"
    return "" if code_hash(config) in {record["code_hash"], *record.get("equal_code", ())} else CODE_CHANGED


def _made_by(record: Record) -> list[str]:
    """Gives the hashes of the code that made a record and its analyses."""
    analyses = (one.get("code_hash") for one in record.get("analyses", {}).values())
    return [record["code_hash"], *(one for one in analyses if one)]


def _analyses(record: Record) -> Iterator[tuple[str, str]]:
    """Gives the hash of the code that made each outdated analysis of a record, with that of the code as it is."""
    if stale(record) not in {"", CODE_CHANGED}:
        return
    config = from_record(record["config"], source="a record")
    for found in record["analyses"].values():
        if found.get("code_hash") and outdated(found, record, config):
            yield found["code_hash"], analysis_hash(analysis(found["analysis"]).module, config)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time read and write a file; the others wait. Nothing is held where there are no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file itself is replaced when it is written, so a lock on it would hold nobody off. The one beside it stays:
    # where it was removed, one process could wait for the old and another hold a new one.
    with path.with_name(f".{path.stem}.lock").open("a") as lock:
        if sys.platform != "win32":
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _epochs(file: Path) -> list[dict[str, Any]]:
    """Gives what a finished run wrote of its epochs; refuses lines that are not those of epochs 1, 2, …"""
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: not of an epoch: {error}") from None
        if lines[-1].get("epoch") != number:
            raise ValueError(
                f"{file}, line {number}: expected epoch {number}, found {lines[-1].get('epoch')}; two processes may "
                "have written to the run's folder: train it again in a new one"
            )
    return lines


def _lines(file: Path) -> Iterator[Record]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not records: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: not a record: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{file}, line {number}: expected one JSON object, found {type(record).__name__}")
        check(record, source=f"{file}, line {number}")
        yield cast("Record", record)


def _evaluations(folder: Path) -> list[Evaluation]:
    return [Evaluation.load(file) for file in sorted(folder.glob("evaluation-test-*.safetensors"))]


def _of(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metrics": _rounded(evaluation.metrics),
        "floors": {name: _rounded(values) for name, values in evaluation.floors.items()},
        "slices": {
            kind: {
                name: _rounded({key: values[key] for key in values if key in _OF_SLICES})
                for name, values in one.items()
            }
            for kind, one in evaluation.slices.items()
        },
    }


def _point(line: Mapping[str, Any], metric: str) -> dict[str, Any]:
    metrics = line.get("metrics") or {}
    return {
        "epoch": line["epoch"],
        "seconds": line["seconds"],
        "metrics": _rounded({metric: metrics[metric]} if metric in metrics else {}),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Gives the numbers with six significant digits of a share: a rank of one user in a million shows."""
    return {name: round(float(value), 6) for name, value in values.items()}
