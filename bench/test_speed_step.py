"""pytest-benchmark of a whole training step: `pytest bench/test_speed_step.py`."""

from functools import cache

import pytest

from eqkernel.backends import unavailable

from .contestants import STEPS, Entry, step_entries
from .measure import TRAINED, check_step
from .problem import training

BACKENDS = ("eqkernel",) if unavailable("c") else ("eqkernel", "eqkernel c")
OURS = [f"{backend}, {schedule}" for backend in BACKENDS for schedule in ("few-step", "single-sweep")]
pytestmark = [
    # What the schedules leave unsettled is a column of the table, not a reason to fail.
    pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),  # torch, of the rival that uses it
]


@cache
def verified(sizes: tuple[int, ...], optimiser: str) -> dict[str, Entry]:
    p = training(*sizes, batch=64)
    entries = step_entries(p, optimiser)
    check_step(p, optimiser, entries)
    return entries


@pytest.mark.parametrize("name", [*STEPS, *OURS])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("sizes", TRAINED, ids=lambda sizes: "-".join(map(str, sizes)))
def test_step(benchmark, sizes: tuple[int, ...], optimiser: str, name: str) -> None:
    benchmark.group = f"whole step, {optimiser}, {sizes} B=64"
    benchmark(verified(sizes, optimiser)[name].run)
