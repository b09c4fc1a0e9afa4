"""``conseq serve``: a bundle behind HTTP."""

from __future__ import annotations

import errno
import math
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Options:
    """Answers requests for recommendations over HTTP until Ctrl-C or SIGTERM; what has come is answered first."""

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
    """A bundle, or a run's folder. Another bundle that is saved there takes over without a pause."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 or :: for all of the machine's. There is no password: see the guide."""
    root_path: str = ""
    """The path under which a proxy shows the service, such as /next."""
    port: int = 8000
    """The port; 0 takes a free one and says which."""
    log: str | None = None
    """A prepared folder, or a log: requests may then name its users instead of giving histories."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1; auto: a GPU where there is one."""
    threads: int | None = None
    """Threads of the model; what torch takes where not given."""
    on_empty: Literal["error", "popular", "blank"] = "error"
    """What a request that does not say it gets for a history without a known item."""
    look_every: float = 10.0
    """Seconds between looks whether another bundle stands there; 0: never."""
    most_histories: int = 1000
    """Histories of one request, at most."""
    most_ids: int = 100_000
    """Ids of one request, at most: of histories, candidates and what is excluded."""
    most_k: int = 1000
    """Items for each history, at most."""
    most_answer: int = 100_000
    """Items of one answer, at most: k for each history."""
    most_bytes: int = 2**22
    """Bytes of one request, at most."""
    most_waiting: int = 10_000
    """Histories that may wait for the model; more are answered with status 503."""
    most_seconds: float = 30.0
    """How long a request may take to come, and wait for the model; the service ends as late after it is told to."""
    access_log: bool = False
    """Print a line for every request."""


def run(argv: list[str]) -> int:
    """Serves until it is stopped."""
    options = tyro.cli(Options, prog="conseq serve", args=argv)
    from conseq.cli.logs import read_log
    from conseq.cli.models import manifest_of, tell_of_strangers
    from conseq.serving.arguments import whole
    from conseq.serving.http import Limits, application

    try:
        import uvicorn
    except ModuleNotFoundError:
        needed = "the service needs uvicorn, which is not installed: pip install 'conseq[serve]'"
        raise ModuleNotFoundError(needed) from None
    if options.threads is not None:
        import torch

        torch.set_num_threads(whole("threads", options.threads))
    limits = Limits(
        histories=options.most_histories,
        ids=options.most_ids,
        k=options.most_k,
        answer=options.most_answer,
        body=options.most_bytes,
        waiting=options.most_waiting,
        seconds=options.most_seconds,
    )
    with ExitStack() as stack:
        listening = [stack.enter_context(one) for one in _listening(options.host, options.port)]
        manifest_of(options.bundle)
        app = application(
            options.bundle,
            device=_device(options.device),
            log=None if options.log is None else read_log(options.log, "serve"),
            on_empty=options.on_empty,
            look_every=options.look_every,
            limits=limits,
            say=_say,
        )
        config = uvicorn.Config(
            app,
            log_level="info" if options.access_log else "warning",
            lifespan="on",
            root_path=options.root_path,
            timeout_graceful_shutdown=math.ceil(options.most_seconds),
        )
        tell_of_strangers(options.bundle)
        host, port = listening[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _say(f"{options.bundle} answers at http://{shown}:{port} (its description: /docs); Ctrl-C stops it")
        uvicorn.Server(config).run(sockets=listening)
    return 0


def _device(name: str) -> torch.device | str:
    if name == "cpu":
        return name  # the check of others comes with all that trains
    from conseq.run.runner import resolve_device

    return resolve_device(name)


def _listening(host: str, port: int) -> list[socket.socket]:
    """Gives sockets that listen at all addresses of a host; whoever asks before the model is loaded waits."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port}: expected 0 to 65535")
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            # A free port that the first address got is the others', too.
            at = (address[0], found[0].getsockname()[1], *address[2:]) if found else address
            try:
                found.append(_listens(family, at))
            except OSError as error:
                # A name may have an address that the machine lacks, as IPv6's in a container.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} or not found:
                    raise
    except OSError as error:
        for one in found:
            one.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"{host}, port {port}: cannot listen there: {reason}") from None
    return found


def _listens(family: int, address: tuple[Any, ...]) -> socket.socket:
    both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    made = socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    # With its protocol named, because the event loop turns Nagle's algorithm off only for such connections: an answer,
    # which is sent in two pieces, would wait some 40 milliseconds for the client to confirm the first one.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
