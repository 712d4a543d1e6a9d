"""pytest-benchmark of the Hebbian update with Adam: `pytest bench/test_speed_update.py`."""

from functools import cache

import pytest

from .contestants import UPDATE_REFERENCE, Entry, update_entries
from .measure import check_update


@cache
def verified() -> dict[str, Entry]:
    entries, arrays = update_entries()
    check_update(entries, arrays)
    return entries


NAMES = [UPDATE_REFERENCE, "torch mm of both traces + fused Adam", "jax jit", "eqkernel"]


@pytest.mark.parametrize("name", NAMES)
def test_update(benchmark, name: str) -> None:
    benchmark.group = "hebbian + adam, 512 x 784, B=64"
    benchmark(verified()[name].run)
