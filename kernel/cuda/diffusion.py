"""Diffusion on a grid, Phi = -D/2 sum_<ij> (s_i - s_j)^2: see `eqkernel.reference.diffusion`.

Lines (B, N) are sheets of one row, which is its own neighbour above and below.
"""

from __future__ import annotations

from typing import Any

from ..errors import lookup
from .checks import check
from .device import current
from .launcher import across, launch

MIRROR = {"periodic": 0, "neumann": 1}  # beyond a zero-flux edge lies the mirror image of the grid


def sheet(state: Any) -> tuple[int, int]:
    """Rows and width of states (B, N) or (B, H, W)."""
    return (1, state.shape[1]) if state.ndim == 2 else (state.shape[1], state.shape[2])


def energy(energy: Any, pre: Any, post: Any, weight: Any, boundary: str = "periodic") -> None:
    """energy[b] -= D/2 post[b] . lap pre[b]."""
    check(energy, (len(pre),), (pre, pre.shape), (post, pre.shape), (weight, (1,)))
    energy -= weight * _correlation(pre, post, boundary) / 2


def drive_post(drive: Any, pre: Any, weight: Any, boundary: str = "periodic") -> None:
    """drive += D/2 lap pre."""
    check(drive, drive.shape, (pre, drive.shape), (weight, (1,)))
    arguments = drive, pre, weight, len(pre), *sheet(pre), lookup("boundary", boundary, MIRROR)
    launch("diffusion", "drive", drive.dtype, across(drive.size), 256, arguments)


def drive_pre(drive: Any, post: Any, weight: Any, boundary: str = "periodic") -> None:
    """drive += D/2 lap post: the Laplacian is symmetric."""
    drive_post(drive, post, weight, boundary)


def hebbian(trace: Any, pre: Any, post: Any, scale: float, boundary: str = "periodic") -> None:
    """trace[0] += scale/2 sum_b post[b] . lap pre[b]."""
    check(trace, (1,), (pre, pre.shape), (post, pre.shape))
    trace += trace.dtype.type(scale / 2) * _correlation(pre, post, boundary).sum()


def _correlation(pre: Any, post: Any, boundary: str) -> Any:
    out = current().arrays.empty(len(pre), pre.dtype)
    arguments = out, pre, post, *sheet(pre), lookup("boundary", boundary, MIRROR)
    launch("diffusion", "correlate", pre.dtype, (len(pre),), 256, arguments)
    return out
