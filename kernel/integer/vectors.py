"""Golden vectors: what every port must repeat, in words and numbers.

    python -m eqkernel.integer.vectors FOLDER      write the files of bindings/integer/vectors again

A file is one config and cases of five kinds. *Natural*: inputs in 0..127 with the bias, one-hot targets, weights as
they begin. *Random*: every byte and every master alike probable, which shows sign errors that natural data never does.
*Corner*: the ends of every range, and the numbers at which roundings turn. *Excitatory*: natural without a negative
weight, so that drives lie about the upper end of the range. *Long*: one natural or random sample, written once and
presented 255 times, which fills a trace. All is text: a word, then its numbers.

    -D options, cases and their number                  the config
    case KIND                                           and for each case
    batch  number, rates of w1 and w2, samples
    w1 (NH lines), w2 (NO lines)                        masters before
    weight1 (NH lines), weight2 (NO lines)              quantised
    x t                                                 and for each sample: input, target,
    h o                                                     free state,
    a p q r s                                               the ends of every synapse
    labels
    after1 (NH lines), after2 (NO lines)                masters after
    status                                              of eqk_train: 0, or 1 for diverged
    report                                              samples, unsettled, stuck, clipped: of all cases so far
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .config import FORMS, MACROS, Config
from .model import BATCH_MAX, OK, Pair, Report, predict, quantise, sample, train_step

CONFIGS = {
    "int8-plus-minus": Config(9, 7, 4, free_steps=12, nudged_steps=5),
    "int8-difference": Config(
        11, 6, 3, free_steps=9, nudged_steps=4, leak=2, fraction=5, beta=3, gamma=2, stochastic=0, form="difference"
    ),
    "ternary-plus-minus": Config(
        3, 35, 2, free_steps=10, nudged_steps=4, leak=0, fraction=3, beta=0, shift1=5, shift2=4, threshold=8
    ),
    "ternary-difference": Config(
        13, 5, 4, free_steps=8, nudged_steps=6, fraction=6, shift1=3, shift2=2, threshold=11, form="difference"
    ),
}
KINDS = ("natural", "random", "corner", "excitatory", "long")
CORNER_BYTES = (-128, -127, -65, -64, -1, 0, 1, 63, 64, 127)
CORNER_MASTERS = [m * sign for m in (0, 127, 128, 129, 383, 384, 385, 32639, 32640, 32641, 32767) for sign in (1, -1)]


class Case(NamedTuple):
    """The inputs of one case."""

    kind: str
    batch: int
    rates: tuple[int, int]
    masters: Pair
    x: NDArray[np.int8]
    t: NDArray[np.int8]


def draw(config: Config, kind: str, rng: np.random.Generator, samples: int = 3) -> Case:
    """A case of a kind; an excitatory one has twice as many samples, a long one 255."""
    if kind == "excitatory":
        case = draw(config, "natural", rng, 2 * samples)  # twice as many: few land where rounding at the end shows
        return case._replace(kind=kind, masters=Pair(*map(abs, case.masters)))
    if kind == "long":
        case = draw(config, str(rng.choice(KINDS[:2])), rng, samples=1)
        many = [np.repeat(row, BATCH_MAX, axis=0) for row in (case.x, case.t)]
        # A larger step would clip, and hide the trace.
        return case._replace(kind=kind, rates=(16, 16), x=many[0], t=many[1])
    shapes = (config.hidden, config.inputs), (config.outputs, config.hidden)
    if kind == "natural":
        x = rng.integers(0, 128, (samples, config.inputs))
        x[:, -1] = 127
        t = 127 * np.eye(config.outputs, dtype=int)[rng.integers(0, config.outputs, samples)]
        spans = (512 * config.threshold, 512 * config.threshold) if config.ternary else (6000, 6000)
        masters = [rng.integers(-span, span + 1, shape) for span, shape in zip(spans, shapes, strict=True)]
        rates = rng.integers(7, 13, 2)
    elif kind == "random":
        x, t = rng.integers(-128, 128, (samples, config.inputs)), rng.integers(-128, 128, (samples, config.outputs))
        masters = [rng.integers(-32767, 32768, shape) for shape in shapes]
        rates = rng.integers(0, 25, 2)
    else:
        x, t = rng.choice(CORNER_BYTES, (samples, config.inputs)), rng.choice((-128, 0, 127), (samples, config.outputs))
        masters = [rng.choice(CORNER_MASTERS, shape) for shape in shapes]
        rates = rng.choice([0, 1, 5, 9, 24], 2)
    batch = int(rng.choice([0, 1, int(rng.integers(2**32)), 2**32 - 1]))
    pair = Pair(*(m.astype(np.int16) for m in masters))
    return Case(kind, batch, (int(rates[0]), int(rates[1])), pair, x.astype(np.int8), t.astype(np.int8))


def lines(config: Config, case: Case, report: Report) -> Iterator[str]:
    """The text of a case, with what the model makes of it; counts into `report`."""

    def line(name: str, values: object) -> str:
        return f"{name} {' '.join(map(str, np.ravel(np.asarray(values)).tolist()))}"

    def rows(name: str, pair: Pair) -> Iterator[str]:
        for layer, matrix in enumerate(pair, 1):
            yield from (line(f"{name}{layer}", row) for row in matrix)

    yield f"case {case.kind}"
    yield line("batch", (case.batch, *case.rates, len(case.x)))
    yield from rows("w", case.masters)
    weights = quantise(case.masters, config)
    yield from rows("weight", weights)
    free, ends = sample(weights, case.x.astype(np.int64), case.t.astype(np.int64), config, Report())
    for k in range(1 if case.kind == "long" else len(case.x)):
        yield line("x", case.x[k])
        yield line("t", case.t[k])
        yield line("h", free.first[k])
        yield line("o", free.second[k])
        yield from (line(name, getattr(ends, name)[k]) for name in "apqrs")
    yield line("labels", predict(config, case.masters, case.x))
    masters = Pair(*(m.copy() for m in case.masters))
    status = train_step(config, masters, case.x, case.t, case.rates, case.batch, report)
    yield from rows("after", masters)
    yield line("status", int(status != OK))
    yield line("report", list(vars(report).values()))


def text(config: Config, cases: list[Case]) -> str:
    """The whole content of a file."""
    head, report = [*config.defines(), "cases", str(len(cases))], Report()
    return "\n".join([" ".join(head), *(line for case in cases for line in lines(config, case, report))]) + "\n"


def read(path: Path) -> tuple[Config, list[Case]]:
    """The config and the inputs of a file; its results are left to be compared."""
    head, *rest = path.read_text(encoding="ascii").splitlines()
    values = [int(option.split("=")[1]) for option in head.split() if "=" in option]
    form = next(name for name, code in FORMS.items() if code == values[-1])
    config = Config(**dict(zip(MACROS, values[:-1], strict=True)), form=form)
    cases: list[dict[str, list]] = []
    for row in rest:
        name, *words = row.split()
        if name == "case":
            cases.append({"case": words})
        elif name in ("batch", "w1", "w2", "x", "t"):
            cases[-1].setdefault(name, []).append([int(word) for word in words])
    return config, [
        Case(
            c["case"][0],
            c["batch"][0][0],
            tuple(c["batch"][0][1:3]),
            Pair(np.array(c["w1"], np.int16), np.array(c["w2"], np.int16)),
            np.resize(np.array(c["x"], np.int8), (c["batch"][0][3], config.inputs)),  # a long case has its sample once
            np.resize(np.array(c["t"], np.int8), (c["batch"][0][3], config.outputs)),
        )
        for c in cases
    ]


def write(folder: Path, each: int = 6) -> None:
    """Files of `each` cases a kind for all of CONFIGS, and their SHA256SUMS."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for number, (name, config) in enumerate(CONFIGS.items()):
        rng = np.random.default_rng(number)
        content = text(config, [draw(config, kind, rng) for kind in KINDS for _ in range(each)])
        (folder / f"{name}.txt").write_text(content, encoding="ascii")
        sums.append(f"{hashlib.sha256(content.encode()).hexdigest()}  {name}.txt\n")
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
