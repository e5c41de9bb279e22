"""Peak memory and speed of `guerdon score`, from Parquet to Parquet; prints one line of JSON per size.

    python benchmarks/score_memory.py [--rows 10000 100000 1000000] [--workers 2] [--data FILE]

The rows are those of GSM8K solutions (`../shared/data/gsm8k_solutions.jsonl.gz`), again and again, or
synthetic ones where that file is absent. Memory is the sum of the proportional set sizes (PSS) of the
command and all processes under it, as /proc says about every 0.2 s: shared pages are counted once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GSM8K = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k_solutions.jsonl.gz"
COMMAND = Path(sys.executable).with_name("guerdon")
ROW_GROUP = 50_000
GLANCE = 0.2


def solutions(path: Path) -> list[dict[str, Any]]:
    """Some thousand rows with prompt, completion and answer."""
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [{k: row[k] for k in ("prompt", "completion", "answer")} for row in map(json.loads, lines)]
    texts = ("She sold 7 * 6 = 42 clips. " * 12, "He then has 40 left. " * 15)
    return [
        {"prompt": f"How many are {i} and {i}? " * 8, "completion": f"{texts[i % 2]}#### {2 * i}", "answer": str(2 * i)}
        for i in range(2500)
    ]


def write(path: Path, rows: list[dict[str, Any]], count: int) -> None:
    """The rows, over and over, numbered."""
    schema = pa.schema([("number", pa.int64()), *((name, pa.string()) for name in rows[0])])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, count, ROW_GROUP):
            numbers = range(start, min(start + ROW_GROUP, count))
            columns = {name: [rows[i % len(rows)][name] for i in numbers] for name in rows[0]}
            writer.write_table(pa.table({"number": list(numbers), **columns}, schema=schema))


def tree(process: int) -> Iterator[int]:
    """A process and all under it."""
    yield process
    try:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from tree(int(child))
    except OSError:  # it has just ended
        return


def pss(process: int) -> int:
    """KiB of memory that a process accounts for."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def measure(folder: Path, count: int, rows: list[dict[str, Any]], workers: int) -> dict[str, Any]:
    given, out = folder / "rollouts.parquet", folder / "scored.parquet"
    write(given, rows, count)
    began = time.monotonic()
    command = [COMMAND, "score", given, "--reward", "math.answer", "--out", out, "--force", "--workers", str(workers)]
    with open(folder / "said", "w") as said:
        running = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said)
    peak = most = 0
    try:
        while running.poll() is None:
            sizes = [pss(process) for process in tree(running.pid)]
            peak, most = max(peak, sum(sizes)), max(most, sizes[0])
            time.sleep(GLANCE)
    finally:
        running.kill()
    seconds = time.monotonic() - began
    if running.returncode:
        raise SystemExit((folder / "said").read_text())
    scored = pq.ParquetFile(out).metadata.num_rows
    return {
        "rows": scored,
        "workers": workers,
        "peak_pss_mib": round(peak / 1024, 1),
        "peak_command_mib": round(most / 1024, 1),
        "seconds": round(seconds, 1),
        "rows_per_s": round(scored / seconds),
        "input_mib": round(given.stat().st_size / 2**20, 1),
        "output_mib": round(out.stat().st_size / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=GSM8K)
    options = parser.parse_args()
    rows = solutions(options.data)
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), count, rows, options.workers)), flush=True)


if __name__ == "__main__":
    main()
