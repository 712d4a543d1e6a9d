"""The CUDA backend: kernels written by hand in CUDA C, compiled and launched by CuPy; float32 and float64.

`dense`, `conv`, `bias`, `lateral`, `diffusion` and `neurons` hold the verbs, `field` the FitzHugh-Nagumo field. For
layered networks `layered` takes over: `fused.cu` settles a tile of samples on the chip (`shallow.cu` a sample of a
network with one hidden layer, in registers), `hebbian.cu` forms the contrast and applies the optimiser; large ones go
layer by layer (`layerwise`, of `layer.cu` and `tensor.cu`). The .cu file of a verb has the name of its .py and, where a
kernel is a verb, its name. `launcher` compiles and launches, `device` is the one place that knows CuPy.

Checked without a GPU: the same text and the same launch code run on a CPU in the tests. Not measured on a GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cpu.plan import dense_plan_of
from . import bias, conv, dense, diffusion, lateral, neurons
from .device import current, missing
from .layered import Layered
from .layerwise import Layerwise
from .precision import get_precision, set_precision
from .shallow import Shallow

if TYPE_CHECKING:
    from ..network import Network

__all__ = [
    "bias",
    "conv",
    "dense",
    "diffusion",
    "fused",
    "get_precision",
    "lateral",
    "missing",
    "namespace",
    "neurons",
    "set_precision",
]

LARGEST = 2**18  # weights that each block of fused.cu may read in every step; a guess, not measured on a GPU


def namespace() -> Any:
    """The array namespace of the device: cupy."""
    return current().arrays


def fused(network: Network) -> Layered | None:
    """The phases of `network` in kernels of their own, or None if its topology needs the verbs one by one."""
    plan = dense_plan_of(network)
    if plan is None:
        return None
    small = (Shallow if Shallow.fits(plan, network.dtype) else Layered)(network, plan)
    return small if small.fits(plan, network.dtype) and small.weights <= LARGEST else Layerwise(network, plan)
