"""The service under load: requests per second and their latency, answered in batches and one by one.

The bundle is that of ``serving.py``. Both services run side by side and are asked in turn, so that a busy machine is
busy for both; the clients are threads of this process, each with a connection that stays open. What the service itself
costs is its process's CPU seconds (Linux).

    python benchmarks/serving_http.py
    python benchmarks/serving_http.py --items 200000 --clients 1 64
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from conseq.cli import serve
from conseq.serving.http import batching
from serving import bundle, histories

KINDS = ("batches", "one by one")
HEADERS = {"Content-Type": "application/json"}


@contextmanager
def service(folder: Path, kind: str) -> Iterator[tuple[str, int]]:
    """Gives the address and the process of a service."""
    command = [sys.executable, __file__, "--serve", kind, "--bundle", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "answers at" in line)
        yield urlsplit(line.split("answers at ")[1].split()[0]).netloc, process.pid
        process.kill()


def cpu_seconds(pid: int) -> float:
    """Gives the CPU seconds that a process has used; not a number where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def calls(address: str) -> float:
    """Gives how often the service has asked the model."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(next(line for line in text.splitlines() if line.startswith("conseq_batch_histories_count")).split()[1])


def ask(address: str, bodies: Sequence[bytes], took: list[float]) -> None:
    """Sends one request after the other over one connection."""
    connection = http.client.HTTPConnection(address, timeout=60)
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/recommend", body, HEADERS)
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - started) * 1e3)
        if answer.status != http.client.OK:
            raise RuntimeError(f"status {answer.status}")
    connection.close()


def round_of(address: str, pid: int, bodies: Sequence[bytes], clients: int) -> dict[str, float]:
    """Gives what answering all ``bodies`` took, asked by so many clients at once."""
    took: list[float] = []
    threads = [threading.Thread(target=ask, args=(address, bodies[one::clients], took)) for one in range(clients)]
    before, cpu, started = calls(address), cpu_seconds(pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    if len(took) != len(bodies):
        raise RuntimeError(f"{len(bodies) - len(took)} of {len(bodies)} requests got no answer")
    p50, p95 = np.percentile(took, [50, 95])
    return {
        "requests_per_s": len(bodies) / wall,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "cpu_ms_per_request": (cpu_seconds(pid) - cpu) / len(bodies) * 1e3,
        "histories_per_call": len(bodies) / (calls(address) - before),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_101, help="size of the catalogue")
    parser.add_argument("--requests", type=int, default=400, help="requests of a round, one history each")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="how many ask at once")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each; the median is shown")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        batching.AT_ONCE = batching.AT_ONCE if options.serve == "batches" else 1
        serve.run([options.bundle, "--port", "0", "--threads", "1", "--look-every", "0"])
        return
    asked = histories(options.requests, options.items, seed=1)
    bodies = [json.dumps({"history": one, "k": 10}).encode() for one in asked]
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle(Path(folder) / "bundle", options.items)
        services = {kind: stack.enter_context(service(Path(folder) / "bundle", kind)) for kind in KINDS}
        for clients in options.clients:
            rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
            for _ in range(options.rounds):
                for kind, (address, pid) in services.items():
                    rounds[kind].append(round_of(address, pid, bodies, clients))
            for kind, found in rounds.items():
                medians = {key: round(float(np.median([one[key] for one in found])), 2) for key in found[0]}
                rows.append({"what": f"answered {kind}", "clients": clients, **medians})
                print(rows[-1], file=sys.stderr)
    print(json.dumps({"items": options.items, "requests": options.requests, "threads": 1, "rows": rows}))


if __name__ == "__main__":
    main()
