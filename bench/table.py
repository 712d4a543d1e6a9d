"""The benchmark's command: measures, prints one table, writes JSON and, if asked, the page for docs/.

python -m bench                                   everything, one thread, then two
python -m bench --only settle --rounds 5          a part of it, quickly
python -m bench --from build/bench.json --markdown docs/benchmarks.md
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import page
from .timing import machine, pinned, sgemm_roof, triad, write_json, write_text

PHASES = ("settle", "update", "step", "conv", "memory")


def work(threads: int, only: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """One process's share: the roofs and all rows for a thread count."""
    import torch

    import eqkernel

    from . import conv, measure, pooled

    warnings.simplefilter("ignore", eqkernel.UnsettledWarning)  # every row shows its residual
    torch.set_num_threads(threads)
    eqkernel.set_threads(threads)
    roofs = {"sgemm GFLOP/s": sgemm_roof(), "triad GB/s": triad()}
    found: dict[str, Any] = {"threads": threads, "machine": machine(), "roofs": roofs, "rows": []}
    batches = (1, 64, 256) if threads == 1 else (64, 256)
    groups = {
        "settle": lambda: measure.settle_rows(threads, batches, rounds, seconds),
        "update": lambda: measure.update_rows(threads, rounds, seconds),
        "step": lambda: measure.step_rows(threads, rounds, seconds),
        "conv": lambda: chain(conv.rows(threads, rounds, seconds), pooled.rows(threads, rounds, seconds)),
    }
    for phase in only:
        for row in groups[phase]() if phase in groups else ():
            found["rows"].append(row)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def run_worker(threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """`work` in a process of its own: thread pools take their size from the cores they find at the start."""
    with tempfile.TemporaryDirectory() as folder, pinned(threads) as environment:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "bench.table", "--worker", str(threads), "--json", str(path),
                   "--only", ",".join(options.only), "--rounds", str(options.rounds),
                   "--seconds", str(options.seconds)]  # fmt: skip
        if subprocess.run(command, env=environment).returncode:
            raise SystemExit(f"the measurement with {threads} thread(s) failed; nothing was written")
        return json.loads(path.read_text())


def show(results: dict[str, Any], console: Console) -> None:
    for run in results["runs"]:
        if not run["rows"]:
            continue
        table = Table(title=page.caption(run), caption="ratio: to the row marked 1, median and quartiles")
        for column in page.COLUMNS:
            table.add_column(column, justify="left" if column in page.WORDS else "right")
        group = None
        for row in run["rows"]:
            if group not in (None, (row["net"], row["batch"], row["phase"])):
                table.add_section()
            group = row["net"], row["batch"], row["phase"]
            ours = row["contestant"].startswith("eqkernel")
            table.add_row(*page.cells(row, run), style="bold" if ours else None)
        console.print(table)
    for title, head, body in page.summaries(results):
        table = Table(*head, title=title)
        for line in body:
            table.add_row(*line)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PHASES), help="which of settle,update,step,conv,memory")
    parser.add_argument("--threads", default="1,2", help="thread counts, each in a process of its own")
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all contestants")
    parser.add_argument("--seconds", type=float, default=0.02, help="least length of one turn")
    parser.add_argument("--json", default="build/bench.json", help="where the results go")
    parser.add_argument("--markdown", help="also write the page, such as docs/benchmarks.md")
    parser.add_argument("--from", dest="source", help="show these results instead of measuring")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PHASES):
        parser.error(f"--only knows {', '.join(PHASES)}, not {', '.join(sorted(unknown))}")
    if options.worker:
        write_json(options.json, work(options.worker, options.only, options.rounds, options.seconds))
        return
    if options.source:
        results = json.loads(Path(options.source).read_text())
    else:
        timed = set(options.only) - {"memory"}
        runs = [run_worker(int(n), options) for n in options.threads.split(",")] if timed else []
        results = {"runs": runs, "memory": []}
        if "memory" in options.only:
            from .memory import measure

            results["memory"] = measure()
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, results)
    show(results, Console(width=None if sys.stdout.isatty() else 200))
    if options.markdown:
        write_text(options.markdown, page.markdown(results))


if __name__ == "__main__":
    main()
