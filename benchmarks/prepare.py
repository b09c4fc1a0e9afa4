"""Seconds and peak memory of preparing a large log, and how the memory grows with the log.

Writes logs of ids with power-law popularity as CSV and Parquet, and prepares each in a process of its own. Ten million
rows need about 2 GB of temporary disk.

    python benchmarks/prepare.py
    python benchmarks/prepare.py --rows 100000 --formats csv
    python benchmarks/prepare.py --users 100000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from measure import Measured, measure

BATCH = 500_000
FIRST_SECOND = 1_300_000_000


def write(path: Path, rows: int, n_users: int) -> None:
    """Writes a log in time order as CSV and, beside it, as Parquet.

    Popularity falls as a power of the rank. There are up to ``n_users`` users and a fifth as many items; their ids have
    14 and 10 characters, as at Amazon.
    """
    import numpy as np  # noqa: PLC0415  (the measuring process must stay small)
    import polars as pl  # noqa: PLC0415

    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b"user_id,item_id,rating,timestamp\n")
        for start in range(0, rows, BATCH):
            n = min(BATCH, rows - start)
            users = (n_users * rng.random(n) ** 2).astype(np.int64)
            items = (n_users // 5 * rng.random(n) ** 4).astype(np.int64)
            times = FIRST_SECOND + np.sort(rng.integers(10 * start, 10 * (start + n), n))
            table = pl.DataFrame(
                {
                    "user_id": "A" + pl.Series(users).cast(pl.String).str.zfill(13),
                    "item_id": "B" + pl.Series(items).cast(pl.String).str.zfill(9),
                    "rating": rng.integers(1, 6, n),
                    "timestamp": times,
                }
            )
            table.write_csv(file, include_header=False)
    pl.scan_csv(path).sink_parquet(path.with_suffix(".parquet"))


def prepare(path: Path, out: Path, k_core: int) -> None:
    """Prepares a log and prints what came of it as JSON."""
    from conseq.data.readers import prepare as prepare_log  # noqa: PLC0415
    from conseq.data.reading import Reading  # noqa: PLC0415

    started = time.perf_counter()
    manifest = prepare_log(path, out, Reading(k_core=k_core))
    print(json.dumps({"seconds": time.perf_counter() - started, "counts": manifest["counts"]}))


def row(path: Path, rows: int, measured: Measured) -> dict[str, object]:
    """Gives a measurement as a row of the table."""
    usage, counts = measured.usage, measured.reported["counts"]
    assert isinstance(counts, dict)
    return {
        "rows": rows,
        "format": path.suffix[1:],
        "MB": round(path.stat().st_size / 1e6),
        "users": counts["users"],
        "items": counts["items"],
        "interactions": counts["interactions"],
        "wall s": round(usage.wall_s, 2),
        "CPU s": round(usage.cpu_s, 2),
        "peak MiB": round(usage.peak_mib),
        "load": f"{measured.load[0]:.1f}",
    }


def main() -> int:
    """Measures each size and format, and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", choices=["csv", "parquet"], default=["csv", "parquet"])
    parser.add_argument("--users", type=int, help="most users of a log; a tenth of its rows where not given")
    parser.add_argument("--k-core", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.rows[0], options.users)
        return 0
    if options.prepare:
        prepare(options.prepare[0], options.prepare[1], options.k_core)
        return 0
    this = [sys.executable, __file__, "--k-core", str(options.k_core), "--rows"]
    rows = []
    for n in options.rows:
        with tempfile.TemporaryDirectory(prefix="conseq-bench-") as folder:
            log = Path(folder, "log.csv")
            users = str(options.users or n // 10)
            measure([*this, str(n), "--users", users, "--write", str(log)], threads=options.threads)
            for suffix in options.formats:
                path = log.with_suffix(f".{suffix}")
                command = [*this, str(n), "--prepare", str(path), str(Path(folder, suffix))]
                rows.append(row(path, n, measure(command, threads=options.threads)))
    print(json.dumps({"threads": options.threads, "k_core": options.k_core, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
