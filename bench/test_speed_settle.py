"""pytest-benchmark of the settle: `pytest bench/test_speed_settle.py`."""

from functools import cache

import pytest

from .contestants import Entry, settle_entries
from .measure import SETTLED, check_settle
from .problem import settling


@cache
def verified(sizes: tuple[int, ...], recurrent: bool, batch: int) -> dict[str, Entry]:
    p = settling(*sizes, batch=batch, recurrent=recurrent)
    entries = settle_entries(p)
    check_settle(p, entries)
    return entries


NAMES = [
    "numpy, naive",
    "numpy, hoisted",
    "torch no_grad, hoisted",
    "torch no_grad, even-odd",
    "torch autograd of Phi",
    "jax jit, hoisted",
    "jax jit, even-odd",
    "eqkernel, synchronous",
    "eqkernel, even-odd",
    "eqkernel, mean and difference",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 64, 256])
@pytest.mark.parametrize(("sizes", "recurrent"), SETTLED, ids=["784-512-10", "784-512-512-10", "784-256r-10"])
def test_settle(benchmark, sizes: tuple[int, ...], recurrent: bool, batch: int, name: str) -> None:
    entries = verified(sizes, recurrent, batch)
    if name not in entries:
        pytest.skip("even-odd order is for layers without lateral connections")
    benchmark.group = f"settle {sizes} B={batch}"
    benchmark(entries[name].run)
