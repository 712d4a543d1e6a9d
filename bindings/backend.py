"""The backend `c`: the verbs and the fused phases of the C library, float32 and float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import bias, conv, dense, diffusion, field, lateral, neurons, precision
from .export import layers_of
from .layered import Layered
from .library import best_variant, variant_name

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["bias", "conv", "dense", "detail", "diffusion", "field", "fused", "lateral", "neurons", "preferred"]


def preferred() -> bool:
    """Whether "auto" should take this backend: its scalar kernels may have to call a slow `fma` of the C library."""
    return variant_name() != "scalar"


def detail() -> str:
    """What `eqkernel doctor` adds: the variant of the kernels that runs, and what bf16x3 would run by."""
    best = "" if variant_name() == best_variant() else f", {best_variant()} could run"
    return f"; {variant_name()} kernels{best}; {precision.detail()}"


def fused(network: Network) -> Layered | None:
    """The fused phases of `network`, or None if its topology needs the verbs one by one."""
    layers = layers_of(network)
    return None if layers is None else Layered(network, layers)
