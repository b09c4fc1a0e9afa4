"""The service: a bundle behind HTTP, with OpenAPI, Prometheus's measures and a change of models without a pause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from conseq.data.log import InteractionLog
from conseq.serving.http.limits import Limits
from conseq.serving.ranking import OnEmpty

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Limits", "application"]


def application(
    bundle: Path | str,
    *,
    device: torch.device | str = "cpu",
    log: InteractionLog | None = None,
    on_empty: OnEmpty = "error",
    look_every: float = 10.0,
    limits: Limits | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FastAPI:
    """Gives the service of a bundle as an ASGI application, for uvicorn or to be mounted in another one.

    ``POST /recommend``, ``POST /similar`` and ``POST /vectors`` answer as the methods of
    :class:`conseq.Recommender` do; ``GET /health`` says which model answers, ``GET /metrics`` counts in Prometheus's
    format, ``GET /docs`` describes all of them. Requests that wait and ask the same are answered in one batch.

    Args:
        bundle: The bundle's folder. It is loaded now; a bundle that replaces it later takes over without a pause.
        device: Where to compute.
        log: Histories by user id, for requests that name ``users``.
        on_empty: What a request that does not say it gets for a history without a known item.
        look_every: Seconds between looks whether another bundle has replaced this one; 0 never looks.
        limits: How much a request may ask for, and how much may wait.
        say: Is told of every change of models, and of a bundle that cannot take over.

    Returns:
        The application.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if it is damaged or its scores are not numbers, ``on_empty`` cannot be answered, or ``look_every``
            is negative.
        ModuleNotFoundError: if the extra ``serve`` is not installed.
    """
    try:
        from conseq.serving.http.routes import build  # noqa: PLC0415  (what serves is an extra)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("conseq"):
            raise
        raise ModuleNotFoundError(
            f"the service needs {error.name}, which is not installed: pip install 'conseq[serve]'", name=error.name
        ) from None
    from conseq.serving.http.live import Live  # noqa: PLC0415  (loads torch's modules only where it serves)

    live = Live(Path(bundle), device=device, on_empty=on_empty, look_every=look_every, say=say)
    return build(live, limits or Limits(), log)
