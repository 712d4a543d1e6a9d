"""The CPU backend: Numba kernels written by hand, float32 and float64, no libm in inner loops.

`dense`, `conv`, `bias`, `lateral` and `neurons` hold the verbs. For layered networks `layered` takes over with fused
kernels: `chain` settles a tile of samples (laid out as `tiles` and `plan` say) by its `drives`, and `update` forms the
Hebbian contrast and applies the optimiser, which `learner` asks for. Under all of them `microkernel` and `gemm` are the
matrix product, `gather` and `zeros` the one that skips zeros, `correlate`, `pooling` and `trace` the parts of a
convolution, `arithmetic` the scalar functions, `compile` the one way a kernel is compiled and `threads` those that it
is spread over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import bias, conv, dense, lateral, neurons
from .layered import Layered
from .plan import plan_of

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["bias", "conv", "dense", "fused", "lateral", "neurons"]


def fused(network: Network) -> Layered | None:
    """The fused phases of `network`, or None if its topology needs the verbs one by one."""
    plan = plan_of(network)
    return None if plan is None else Layered(network, plan)
