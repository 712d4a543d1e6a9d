"""One thread of NumPy's BLAS, whose results depend on how many it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

_TURN = RLock()  # the number of threads is the process's: two that set it at once would not give back what was there


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread(array: Any) -> Iterator[None]:
    """A context in which products of arrays like this one have one thread of BLAS; those of a device need none."""
    if not isinstance(array, np.ndarray):
        yield
        return
    with _TURN, _libraries().limit(limits=1):
        yield
