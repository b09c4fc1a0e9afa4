"""Who is in a part of the users, of runs that are compared in that part alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from conseq.data.log import InteractionLog
from conseq.encoders.floors import item_counts
from conseq.evaluation.evaluator import digest
from conseq.evaluation.result import Evaluation
from conseq.evaluation.slices import parts
from conseq.run.lists import recorded_cut


def users_among(
    part: str, log: InteractionLog, told: Mapping[str, Any], evaluation: Evaluation, *, source: str
) -> npt.NDArray[np.bool_]:
    """Gives who of the judged users is in a part, as the tables of an evaluation name them.

    Args:
        part: A cut and one of its parts, such as ``time tie=no``, ``history=<=5`` or ``repeat=yes``.
        log: The log that the runs were judged on.
        told: What a run or a record of one says, of which ``split`` is how the log is cut.
        evaluation: One of what is compared.
        source: What says it, named in errors.

    Returns:
        bool ``[B]``, in the order of the evaluation's users.

    Raises:
        ValueError: if the log is another one, there is no such part, or it is of targets and users have several.
    """
    split = recorded_cut(told, source=source).cut(log)
    held = split.test
    if digest(held) != evaluation.held_out:
        raise ValueError(
            f"{source} was judged on another log than the one given: its users, histories or targets differ"
        )
    cut, given, name = part.partition("=")
    by_user, by_target = parts(held, counts=item_counts(split.train, split.n_items).cpu().numpy())
    every = {**by_user, **by_target}
    known = ", ".join(f"{one}={each}" for one, masks in every.items() for each in masks)
    if not given or name not in every.get(cut, {}):
        raise ValueError(f"no users of {part!r}; the parts are {known}")
    if cut in by_target and held.targets.max_length > 1:
        raise ValueError(f"{cut!r} parts the targets, of which users have several here; compare in a part of the users")
    return every[cut][name]
