"""How results read: the cells of the table, the summaries under it, and the page for docs/."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Run = dict[str, Any]
COLUMNS = ["net", "batch", "phase", "contestant", "schedule", "steps", "residual", "gradient cosine",
           "samples/s", "ratio", "GFLOP/s", "% of roof"]  # fmt: skip
WORDS = ["net", "phase", "contestant", "schedule", "steps"]

CONV = "28²-14²×16-14²×16-10"  # two convolutions and a readout, 34,106 weights
POOLED = {pool: f"28²-12²×32-4²×64-10, {pool}" for pool in ("max", "average")}  # the same of 62,346 weights, pooled

# What is claimed: net, batch, phase, contestant, against, at least so many times as fast.
TARGETS = [
    ("784-512-10", 64, "settle", "eqkernel, even-odd", "torch no_grad, hoisted", 1.6),
    ("784-512-10", 64, "settle", "eqkernel, even-odd", "torch no_grad, even-odd", 1.0),
    ("784-512-10", 64, "settle", "eqkernel, even-odd", "jax jit, hoisted", 1.3),
    ("784-512-10", 64, "settle", "eqkernel, even-odd", "torch autograd of Phi", 20.0),
    ("784-512-10", 1, "settle", "eqkernel, even-odd", "torch no_grad, hoisted", 8.0),
    ("784-512-10", 1, "settle", "eqkernel c, even-odd", "torch no_grad, hoisted", 8.0),
    ("784-512-10", 1, "settle", "eqkernel c, over-relaxed", "torch no_grad, hoisted", 12.0),
    ("784-512-10", 64, "settle", "eqkernel c, even-odd", "torch no_grad, hoisted", 2.2),
    ("784-512-10", 64, "settle", "eqkernel c, even-odd", "torch no_grad, even-odd", 1.4),
    ("784-256r-10", 64, "settle", "eqkernel c, even-odd", "torch no_grad, hoisted", 1.05),
    ("784-256r-10", 1, "settle", "eqkernel c, even-odd", "torch no_grad, hoisted", 4.0),
    ("784-256r-10", 64, "settle", "eqkernel c, bf16x3", "torch no_grad, hoisted", 1.4),
    ("784-512-512-10", 64, "settle", "eqkernel, even-odd", "torch no_grad, hoisted", 1.5),
    ("784-512-512-10", 64, "settle", "eqkernel, even-odd", "jax jit, hoisted", 1.5),
    ("784-256r-10", 64, "settle", "eqkernel, even-odd", "torch no_grad, hoisted", 1.0),
    ("784-256r-10", 1, "settle", "eqkernel, even-odd", "torch no_grad, hoisted", 2.5),
    ("512 x 784", 64, "hebbian + adam", "eqkernel", "torch mm + fused Adam", 2.0),
    # The contrast of two phases, as any layer needs it; and that of a clamped input, which is half of the work.
    ("512 x 784", 64, "hebbian + adam", "eqkernel c", "torch mm of both traces + fused Adam", 2.3),
    ("512 x 784", 64, "hebbian + adam", "eqkernel c", "torch mm + fused Adam", 2.3),
    (CONV, 32, "settle", "eqkernel, even-odd", "torch no_grad, even-odd", 1.0),
    (CONV, 32, "settle", "eqkernel, even-odd", "torch no_grad, NCHW", 2.3),
    (CONV, 32, "settle", "eqkernel c, even-odd", "torch no_grad, even-odd", 1.25),
    (CONV, 32, "settle", "eqkernel c, even-odd", "torch no_grad, NCHW", 3.0),
    (CONV, 32, "settle", "eqkernel c, over-relaxed", "torch no_grad, NCHW", 3.0),
    (CONV, 32, "settle", "eqkernel, over-relaxed difference", "torch autograd of Phi", 6.0),
    (POOLED["max"], 64, "whole step, pooled", "eqkernel c, single-sweep", "torch backprop", 1.5),
    (POOLED["average"], 64, "whole step, pooled", "eqkernel c, single-sweep", "torch backprop", 2.0),
    *(
        (net, 64, f"whole step, {optimiser}", f"eqkernel, {schedule}", "torch autograd backprop", least)
        for net in ("784-512-10", "784-512-512-10", "784-256-256-256-256-10")
        for optimiser in ("sgd", "adam")
        for schedule, least in (("few-step", 0.8), ("single-sweep", 1.2))
    ),
    *(
        (net, 64, f"whole step, {optimiser}", f"eqkernel c, {schedule}", against, least)
        for net in ("784-512-10", "784-512-512-10", "784-256-256-256-256-10")
        for optimiser in ("sgd", "adam")
        for schedule, against, least in (
            ("few-step", "torch autograd backprop", 1.0),
            ("single-sweep", "torch autograd backprop", 1.5),
            ("single-sweep", "torch hand-written backprop", 1.0),
        )
    ),
]


def digits3(value: float) -> str:
    """Three significant digits, plainly: 0.987, 1.23, 45.6, 12,300."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{round(value, 2 - int(np.floor(np.log10(abs(value))))):,.{decimals}f}"


def roof(run: Run) -> float:
    return max(run["roofs"]["sgemm GFLOP/s"].values())


def caption(run: Run) -> str:
    sgemm = ", ".join(f"{name} {value:.0f}" for name, value in run["roofs"]["sgemm GFLOP/s"].items())
    return (
        f"{run['threads']} thread{'s' * (run['threads'] > 1)}: {run['machine']['cpu']}, float32; "
        f"sgemm {sgemm} GFLOP/s; triad {run['roofs']['triad GB/s']:.1f} GB/s"
    )


def cells(row: dict[str, Any], run: Run) -> list[str]:
    """The row as text, in the order of COLUMNS."""
    low, middle, high = row["ratio"]
    own = row["contestant"] == row["reference"]
    return [
        row["net"], str(row["batch"]), row["phase"], row["contestant"], row["schedule"], row["steps"],
        " / ".join(f"{r:.0e}" for r in row["residual"] or ()),
        f"{shortened(row['cosine'])} / {shortened(row['worst cosine'])}",
        digits3(row["samples/s"]),
        "1" if own else f"{digits3(middle)} ({digits3(low)}–{digits3(high)})",
        f"{row['GFLOP/s']:.0f}", f"{100 * row['GFLOP/s'] / roof(run):.0f}",
    ]  # fmt: skip


def shortened(cosine: float) -> str:
    """A cosine near 1 to six digits, never rounded up to 1."""
    return f"{min(cosine, 0.999999):.6f}"[1:] if cosine > 0 else f"{cosine:.3f}"


def versus(run: Run, net: str, batch: int, phase: str, name: str, against: str) -> tuple[float, float, float] | None:
    """Quartiles and median (low, median, high) of the ratio of any two contestants timed together."""
    group = [r for r in run["rows"] if (r["net"], r["batch"], r["phase"]) == (net, batch, phase)]
    rows = {r["contestant"]: r for r in group}
    if name not in rows or against not in rows:
        return None
    ratios = np.array(rows[against]["seconds"]) / np.array(rows[name]["seconds"])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float(low), float(middle), float(high)


def spanned(ratios: Iterable[float]) -> str:
    """The median of (low, median, high), and the quartiles about it."""
    return "{1} ({0}–{2})".format(*map(digits3, ratios))


Summary = tuple[str, list[str], list[list[str]]]


def targets(run: Run) -> Summary:
    lines = []
    for net, batch, phase, name, against, least in TARGETS:
        if found := versus(run, net, batch, phase, name, against):
            met = "yes" if found[1] >= least else "no"
            work = f"{phase}, {net}, B={batch}"
            lines.append([work, name, against, f"{least:g}", spanned(found), met])
    return "Targets, one thread", ["work", "contestant", "against", "wanted", "measured", "met"], lines


def threads(run: Run) -> Summary:
    """eqkernel with all of the run's threads against itself with one, timed together."""
    lines = []
    for row in run["rows"]:
        name = row["contestant"]
        if name.endswith(", one thread"):
            several = name.removesuffix(", one thread")
            found = versus(run, row["net"], row["batch"], row["phase"], several, name)
            if found:
                work = f"{row['phase']}, {row['net']}, B={row['batch']}"
                cores = spanned(row["cores"]) if row.get("cores") else ""  # a result of an earlier version has none
                lines.append([work, several, spanned(found), cores])
    return f"{run['threads']} threads against one", ["work", "contestant", "ratio", "copies"], lines


def fastest(run: Run) -> Summary:
    """eqkernel's fastest row of every group against the fastest row of anyone else."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in run["rows"]:
        if not row["contestant"].endswith("one thread"):
            groups.setdefault((row["net"], row["batch"], row["phase"]), []).append(row)
    lines = []
    for (net, batch, phase), rows in groups.items():
        own = [row for row in rows if row["contestant"].startswith("eqkernel")]
        sides = own, [row for row in rows if row not in own]
        if all(sides):
            ours, theirs = (max(side, key=lambda r: r["samples/s"])["contestant"] for side in sides)
            found = versus(run, net, batch, phase, ours, theirs)
            assert found is not None
            lines.append([f"{phase}, {net}, B={batch}", ours, theirs, spanned(found)])
    title = f"Against the fastest rival, {run['threads']} thread{'s' * (run['threads'] > 1)}"
    return title, ["work", "contestant", "against", "ratio"], lines


def zeros(run: Run) -> Summary:
    """How many zeros the products of a training step meet."""
    lines = [
        [f"{row['net']}, B={row['batch']}", *(f"{share:.2f}" for share in row["zeros"])]
        for row in run["rows"]
        if row["contestant"] == "eqkernel, few-step" and row["phase"].endswith("sgd")
    ]
    head = ["work", "of the input", "of hidden means", "of hidden differences"]
    return "Share of zeros in a training step", head, lines


def memory(rows: list[dict[str, Any]]) -> Summary:
    lines = [
        [r["contestant"], *(f"{v:.1f}" for v in r["peak MiB"]), f"{r['ratio']:.3f}",
         *(f"{v:.1f}" for v in r["added MiB"])]
        for r in rows
    ]  # fmt: skip
    few, many = rows[0]["steps"] if rows else (10, 1000)
    head = ["contestant", f"peak MiB, {few} steps", f"{many} steps", "ratio",
            f"added, {few} steps", f"{many} steps"]  # fmt: skip
    return "Peak memory of a process, settle of 784-512-10 at B=64", head, lines


def summaries(results: dict[str, Any]) -> list[Summary]:
    found = []
    for run in results["runs"]:
        found += [targets(run) if run["threads"] == 1 else threads(run), fastest(run)]
        found += [zeros(run)] if run["threads"] == 1 else []
    found.append(memory(results["memory"]))
    return [s for s in found if s[2]]


def grid(head: list[str], body: list[list[str]], words: list[str]) -> str:
    marks = [":--" if column in words else "--:" for column in head]
    lines = [head, marks, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


HOW = """\
Written by `make bench` and `python -m bench --from build/bench.json --markdown PAGE`.

**How to read it.** Every contestant solves the same problem from the same weights and is checked before it is
timed: its settled states must leave no larger residual than the reference's, but for rounding, and its gradient
is compared with the float64 implicit gradient. Contestants take turns, round after round in random order; a
ratio is the median over rounds of the ratio to the reference inside one round, with its quartiles. *Residual* is
max |ρ(drive) − s| over all units and samples, in float64, after the free phase and after the nudged phases.
*Gradient cosine* is given over all parameters and for the worst single array. *GFLOP/s* counts only the
matrix products that the row's own algorithm needs, and *% of roof* sets it against the fastest sgemm that any
installed library reaches in the same process.

- **settle** is the free phase from rest and both nudged phases (β = 0.1, γ = 1, squared error, linear
  output): 30 + 10 synchronous steps, or the fewest even-odd steps that reach the same residuals, or the fewest
  *over-relaxed* ones (even-odd with the best of eight step sizes above 1; the same size and number for every
  library). Rows of different order do different amounts of work for an equally settled state; compare them for
  the time, and rows of one order for the code. A product with a layer that is still at rest is zero; eqkernel
  skips it, as `c` does one of two products that are the same in both nudged states, and their GFLOP/s leave it out.
- **bf16x3** is the same settle with every factor of a product written as the sum of two bfloat16, of which three of
  four products are formed: within 3 · 2⁻¹⁶ of a product's size (its residual may be as large). Its GFLOP/s count the
  products of the algorithm, not the three. It is there for AMX: a core multiplies and adds 512 bfloat16 a cycle
  (blocks of 16 × 16 × 32 in 16 cycles), and 32 floats (two units of 16), so three products could take 3/16 of the time
  of one in float; where there is AMX the rows say what comes of it. AVX512-BF16 alone does two products a lane where
  the float instruction does one, at the same rate (measured on Zen 4), so three take 1.5 times the time of one in
  float: there the row is slower than *eqkernel c, even-odd*, and what it gains on torch is that order's.
- **hebbian + adam** is the contrast and Adam's step for one matrix of the clamped input. The cosine is that
  of the weights' change over three steps.
- **whole step** is one training step (β = 0.02, cross-entropy) at weights trained for three epochs on
  enlarged digits. The *few-step* and *single-sweep* schedules of eqkernel do far less work than the
  literature's 30 + 10 steps: set them beside backpropagation, never beside a settle of 30 + 10. Single-sweep
  is backpropagation up to secant derivatives; it follows the loss of its own pass, and is held to the equilibrium of
  its γ here as the others are. The cosine of backpropagation is with the gradient of its own
  feed-forward network. The work of a step does not depend on β; a larger β crosses more corners of the hard
  sigmoid and lowers eqkernel's cosine.
- **the convolutional network**, 5 × 5 stride 2 to 16 maps, 3 × 3 to 16, and a readout, sigmoids throughout: its
  settle has γ = 1, β = 0.02 and 32 + 8 synchronous steps, or the fewest even-odd ones. Its whole steps (γ = 0.1,
  binary cross-entropy, Muon, weights after 100 steps on enlarged digits) are *converged*, as those 32 + 8, and 4 + 3
  *half-sweeps*, beside the same by hand in torch and feed-forward backpropagation.
- **the pooled network**, 5 × 5 to 32 maps and to 64, each pooled by 2, and a readout, hard sigmoids
  (`models.conv_hopfield`): whole steps of *single-sweep* (γ = 0.01, β = 0.2, cross-entropy, Adam, weights after three
  epochs on enlarged digits) beside backpropagation with fused Adam in torch, both held to the gradient of the
  feed-forward pass.

**Zeros.** Many of the input's pixels are zero, and so are many of the hard sigmoids' states and differences (a table
below says how many). eqkernel skips products with zeros, which changes no bit of the result; its GFLOP/s count them
all the same, so a row may pass its roof. torch can leave out the zeros of an input too, in compressed rows; that row,
*sparse input*, has them made beforehand. Rows marked *no zeros* have the same problem with noise in every empty pixel.

**Threads against one** is what eqkernel gains by its threads. Beside it stand *copies*, in the same rounds: as many
settles of one thread each, at once, against one of them. They hand nothing over, and tell whether the machine had the
cores to give.

Libraries choose their kernels by processor: on AMD, torch's MKL uses 256-bit vectors even where 512-bit ones
exist, and OpenBLAS may not recognise a new processor. That is what users of these libraries get, so nothing
here overrides it; the caption of each table names every library's own sgemm rate, and the roof is the fastest
of them.
"""


def markdown(results: dict[str, Any]) -> str:
    """The page, from the results alone."""
    parts = ["# Benchmarks\n", HOW]
    if results["runs"]:
        about = results["runs"][0]["machine"]
        lines = [f"| {key} | {listed(value)} |" for key, value in about.items()]
        parts.append("\n".join(["## Machine\n", "| | |", "|:--|:--|", *lines, ""]))
    for title, head, body in summaries(results):
        parts.append(f"## {title}\n\n{grid(head, body, ['work', 'contestant', 'against'])}\n")
    for run in results["runs"]:
        if run["rows"]:
            body = [cells(row, run) for row in run["rows"]]
            title = f"## All rows, {run['threads']} thread{'s' * (run['threads'] > 1)}\n"
            parts.append(f"{title}\n{caption(run)}\n\n{grid(COLUMNS, body, WORDS)}\n")
    return "\n".join(parts)
