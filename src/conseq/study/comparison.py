"""Finished runs compared with one another, runs of one experiment under several seeds together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from conseq.data.log import InteractionLog
from conseq.data.prepared import is_prepared
from conseq.evaluation.compare import Comparison, among, check_by_user, check_comparable, compare_groups
from conseq.evaluation.lists import LIST_LENGTH, SHORTEST_LIST
from conseq.evaluation.metrics import parse
from conseq.evaluation.result import Evaluation
from conseq.run.config import START
from conseq.run.folder import CONFIG, read_config
from conseq.study.parts import users_among
from conseq.study.records import History, Record, but_seed, identity, read_records
from conseq.study.top_ranks import KEY as RANKS
from conseq.study.top_ranks import record_name, unpacked

_STARTED_FROM = f"{START}.method.name", f"{START}.weights"


def load_runs(runs: Sequence[Path], history: History, records: Sequence[Record] = ()) -> dict[str, list[Evaluation]]:
    """Gives the test evaluations of some runs, those that differ in the seed alone under one name.

    Args:
        runs: Folders of finished runs, or of lists that were judged.
        history: The protocol.
        records: Records with ranks by user, which stand behind the runs.

    Returns:
        Evaluations by a name that says what sets the experiment apart from the others; records have their row's.

    Raises:
        ValueError: if a folder holds no finished run, two are runs of one experiment with the same seed, or a record
            keeps no ranks by user.
    """
    lists = {run: _lists_in(run, history) for run in runs if not (run / CONFIG).is_file()}
    written = {run: _config(run) for run in runs if run not in lists}
    kept = list({identity(one): one for one in records}.values())
    keys = {run: but_seed(config) for run, config in written.items()}
    told = [(str(run), keys[run], config["training"]["seed"]) for run, config in written.items()]
    _refuse_doubles([*told, *((record_name(one), but_seed(one["config"]), one["seed"]) for one in kept)])
    names = _names({key: json.loads(key) for key in dict.fromkeys(keys.values())})
    called = {run: names[key] for run, key in keys.items()} | _names_of_lists(lists, set(names.values()))
    found: dict[str, list[Evaluation]] = {}
    for run in runs:
        judged = lists[run] if run in lists else _evaluation(run, history)
        found.setdefault(called[run], []).append(replace(judged, model=called[run]))
    for one in kept:
        name = names.setdefault(but_seed(one["config"]), _told_apart(one, found.keys()))
        found.setdefault(name, []).append(replace(unpacked(one, history), model=name))
    return found


def _told_apart(record: Record, taken: Set[str]) -> str:
    name = str(record["row"])
    return name if name not in taken else f"{name} ({record['preset']}, {record['study']})"


def chosen_records(files: Sequence[Path], dataset: str | None, rows: Sequence[str]) -> list[Record]:
    """Gives records to be compared.

    Args:
        files: Files of records.
        dataset: Their log; None: whatever they are of, where that is one.
        rows: The names of their rows, the one that others are compared with first; none: all.

    Returns:
        Those that keep ranks by user, in the order of the rows; how many do not is said on standard error.

    Raises:
        ValueError: if they are of several logs, there are none of a row, or none that keeps ranks.
    """
    known = [record for file in files for record in read_records(file)]
    of_log = [one for one in known if dataset in (None, one["dataset"])]
    logs = sorted({one["dataset"] for one in known})
    if dataset is None and len(logs) > 1:
        raise ValueError(f"the records are of several logs, {', '.join(logs)}: name one (--dataset in a shell)")
    if not of_log:
        raise ValueError(f"no record of {dataset!r}; the records are of {', '.join(logs) or 'nothing'}")
    names = dict.fromkeys(one["row"] for one in of_log)
    for row in rows:
        if row not in names:
            raise ValueError(f"no record of the row {row!r}; there are {', '.join(names)}")
    asked = [one for row in rows for one in of_log if one["row"] == row] if rows else of_log
    found = [one for one in asked if RANKS in one]
    if not found:
        raise ValueError(f"none of the {len(asked)} records keeps ranks by user; run what is to be compared again")
    if bare := [row for row in rows if row not in {one["row"] for one in found}]:
        raise ValueError(f"no record of {', '.join(bare)} keeps ranks by user; run what is to be compared again")
    if lacking := len(asked) - len(found):
        print(f"note: {lacking} of {len(asked)} records keep no ranks by user and are left out", file=sys.stderr)
    return found


def compare_runs(
    runs: Sequence[Path],
    metrics: Sequence[str],
    *,
    history: History,
    confidence: float = 0.95,
    resamples: int = 10_000,
    part: str | None = None,
    log: InteractionLog | None = None,
    records: Sequence[Record] = (),
) -> tuple[list[Comparison], list[Evaluation]]:
    """Gives paired comparisons of the first run's experiment with all others.

    Args:
        runs: Folders of finished runs, or of lists that were judged; runs of one experiment under several seeds are
            averaged user by user.
        metrics: Metrics of ranks, such as ``NDCG@10``.
        history: The protocol.
        confidence: Of the intervals.
        resamples: Bootstrap samples of the users.
        part: A part of the users, such as ``time tie=no``; None: all.
        log: What the runs were judged on; needed for a part.
        records: Records of runs, which are compared as well (:func:`chosen_records`).

    Returns:
        The comparisons, and all evaluations (of the part).

    Raises:
        ValueError: if there is nothing to compare, runs were not judged alike, or a metric needs longer lists than some
            are.
    """
    groups = load_runs(runs, history, records)
    if len(groups) < 2:
        raise ValueError(
            f"expected runs of at least two experiments, found {len(groups)} (runs that differ in their seed alone "
            "are one)"
        )
    check_by_user(metrics)
    _refuse_what_lists_cannot_tell(groups, metrics)
    if part is not None:
        if log is None:
            raise ValueError(f"which users are of {part!r} is in the log: give it, too (--data in a shell)")
        first, *rest = (one for group in groups.values() for one in group)
        for one in rest:
            check_comparable(first, one)
        told, source = _cut_of(runs, records)
        chosen = users_among(part, log, told, first, source=source)
        groups = {name: [among(one, chosen) for one in group] for name, group in groups.items()}
    baseline, *others = groups.values()
    found = compare_groups(baseline, others, metrics, confidence=confidence, resamples=resamples)
    return found, [one for group in groups.values() for one in group]


def _cut_of(runs: Sequence[Path], records: Sequence[Record]) -> tuple[Mapping[str, Any], str]:
    """Gives what says how the log is cut, of the first run or record, and what that is called."""
    run = next((one for one in runs if (one / CONFIG).is_file()), None)
    if run is not None:
        return read_config(run), str(run)
    if not records:
        raise ValueError("none of the folders is a run's, whose record says how the log is cut; name one")
    return records[0]["config"], record_name(records[0])


def _refuse_doubles(experiments: Sequence[tuple[str, str, int]]) -> None:
    """Refuses two runs, or records, of one experiment and seed: they are one draw, and would count as two."""
    first: dict[tuple[str, int], str] = {}
    for name, settings, seed in experiments:
        other = first.setdefault((settings, seed), name)
        if other != name:
            raise ValueError(
                f"{other} and {name} are runs of one experiment with the same seed, {seed}; runs are averaged over "
                "seeds, so name one of them"
            )


def _refuse_what_lists_cannot_tell(groups: Mapping[str, Sequence[Evaluation]], metrics: Sequence[str]) -> None:
    """Refuses metrics that need more of a ranking than lists hold."""
    for name, evaluations in groups.items():
        length = evaluations[0].counts.get(LIST_LENGTH)
        for metric in metrics:
            k = parse(metric).k
            if length is not None and (k is None or k > length):
                raise ValueError(f"{metric} needs more than the {length} items of the lists {name!r}")
            shortest = evaluations[0].counts.get(SHORTEST_LIST)
            if shortest is not None and k is not None and k > shortest:
                print(f"note: {metric}: some lists of {name} are shorter; what they lack is no hit", file=sys.stderr)


def _lists_in(run: Path, history: History) -> Evaluation:
    """Gives the evaluation of lists that something else made, which `conseq evaluate-lists --out` has written."""
    files = _files(run, history)
    if files:
        return Evaluation.load(files[0])
    others = ", ".join(one.stem.removeprefix("evaluation-") for one in sorted(run.glob("evaluation-*.safetensors")))
    if others:
        raise ValueError(f"{run} holds no evaluation of the test part with history {history}, only {others}")
    if is_prepared(run):
        raise ValueError(f"{run} is a prepared log, not the folder of a run; the log is named with --data, for --among")
    raise ValueError(f"{run} is not the folder of a run: it has no {CONFIG}")


def _names_of_lists(lists: Mapping[Path, Evaluation], taken: Set[str]) -> dict[Path, str]:
    """Gives lists their own names, and their folders where two have one."""
    models = [*taken, *(one.model for one in lists.values())]
    return {run: one.model if models.count(one.model) == 1 else f"{one.model} ({run})" for run, one in lists.items()}


def _config(run: Path) -> dict[str, Any]:
    written = read_config(run)
    lacking = [name for name in ("method", "training") if name not in written]
    if lacking:
        raise ValueError(f"{run / CONFIG} is not that of a run: it lacks {', '.join(lacking)}")
    return written


def _evaluation(run: Path, history: History) -> Evaluation:
    files = _files(run, history)
    if not files:
        raise ValueError(f"{run} holds no test evaluation with history {history}; is the run finished?")
    return Evaluation.load(files[0])


def _files(run: Path, history: History) -> list[Path]:
    return sorted(run.glob(f"evaluation-test-*-{history}-*.safetensors"))


def _names(experiments: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Gives each experiment its method's name and the settings in which those of that method differ."""
    flat = {key: dict(_flat(one)) for key, one in experiments.items()}
    names: dict[str, str] = {}
    for key, own in flat.items():
        same = [other for other in flat.values() if other["method.name"] == own["method.name"]]
        started = [other for other in same if any(one in other for one in _STARTED_FROM)]
        # Beside runs that start from nothing, what it starts from says enough; other settings only beside its like.
        beside = {one: started if one.startswith(START) and one not in _STARTED_FROM else same for one in own}
        differing = [one for one in own if any(other.get(one) != own[one] for other in beside[one])]
        told = ", ".join(f"{one if one.startswith(START) else one.partition('.')[2]}={own[one]}" for one in differing)
        names[key] = f"{own['method.name']} ({told})" if told else str(own["method.name"])
    return names


def _flat(tables: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Gives the settings with their sections before their names; those of what a run starts from are sections, too."""
    for section, table in tables.items():
        if not isinstance(table, Mapping):
            yield section, table
            continue
        for key, value in table.items() if section != START else _flat(table):
            yield f"{section}.{key}", value
