"""Diffusion on a grid, Phi = -D/2 sum_<ij> (s_i - s_j)^2: see `eqkernel.reference.diffusion`.

Lines (B, N) are sheets of one row, which is its own neighbour above and below.
"""

from __future__ import annotations

import numpy as np

from ..errors import EqkernelError, lookup
from .compile import inline, kernel

MIRROR = {"periodic": False, "neumann": True}  # beyond a zero-flux edge lies the mirror image of the grid


def mirrored(boundary: str) -> bool:
    """Whether the grid goes on as its mirror image; EqkernelError for a boundary that is unknown."""
    return lookup("boundary", boundary, MIRROR)


@inline
def source(i, n, mirror):
    """The cell of 0..n-1 whose value lies at i on the endless line."""
    i %= 2 * n if mirror else n
    return i if i < n else 2 * n - 1 - i


@kernel
def laplacian_row(out, sheet, i, mirror):
    """out = row i of the sum over neighbours j of s_j - s_i."""
    rows, width = sheet.shape
    four = out.dtype.type(4)
    north, row, south = sheet[source(i - 1, rows, mirror)], sheet[i], sheet[source(i + 1, rows, mirror)]
    for j in (0, width - 1):
        west, east = row[source(j - 1, width, mirror)], row[source(j + 1, width, mirror)]
        out[j] = (north[j] + south[j]) + (west + east) - four * row[j]
    inside, above, below = out[1 : width - 1], north[1 : width - 1], south[1 : width - 1]
    west, here, east = row[: width - 2], row[1 : width - 1], row[2:]
    for j in range(inside.size):
        inside[j] = (above[j] + below[j]) + (west[j] + east[j]) - four * here[j]


@kernel
def add_laplacian(out, sheets, laplacian, scale, mirror):
    """out += scale lap sheets, both (B, H, W); laplacian (W,) is scratch."""
    batch, rows, width = sheets.shape
    for b in range(batch):
        for i in range(rows):
            laplacian_row(laplacian, sheets[b], i, mirror)
            row = out[b, i]
            for j in range(width):
                row[j] += scale * laplacian[j]


@kernel
def correlate(out, post, pre, laplacian, columns, mirror):
    """out[b] = post[b] . lap pre[b], summed column by column first; pre and post (B, H, W), scratch (W,)."""
    batch, rows, width = pre.shape
    for b in range(batch):
        columns[:] = 0
        for i in range(rows):
            laplacian_row(laplacian, pre[b], i, mirror)
            row = post[b, i]
            for j in range(width):
                columns[j] += row[j] * laplacian[j]
        out[b] = columns.sum()


def energy(
    energy: np.ndarray, pre: np.ndarray, post: np.ndarray, weight: np.ndarray, boundary: str = "periodic"
) -> None:
    """energy[b] -= D/2 post[b] . lap pre[b]."""
    energy -= 0.5 * weight[0] * _correlation(pre, post, boundary)


def drive_post(drive: np.ndarray, pre: np.ndarray, weight: np.ndarray, boundary: str = "periodic") -> None:
    """drive += D/2 lap pre; drive is C-contiguous."""
    if not drive.flags.c_contiguous:
        raise EqkernelError("a kernel writes C-contiguous arrays only: pass np.ascontiguousarray(...) and copy back")
    sheets, scale = _sheets(pre), drive.dtype.type(0.5 * weight[0])
    add_laplacian(_sheets(drive), sheets, np.empty_like(sheets[0, 0]), scale, mirrored(boundary))


drive_pre = drive_post  # the Laplacian is symmetric


def hebbian(trace: np.ndarray, pre: np.ndarray, post: np.ndarray, scale: float, boundary: str = "periodic") -> None:
    """trace[0] += scale/2 sum_b post[b] . lap pre[b]."""
    trace += 0.5 * scale * _correlation(pre, post, boundary).sum()


def _correlation(pre: np.ndarray, post: np.ndarray, boundary: str) -> np.ndarray:
    out = np.empty(len(pre), pre.dtype)
    sheets = _sheets(pre)
    scratch = np.empty((2, sheets.shape[2]), pre.dtype)
    correlate(out, _sheets(post), sheets, scratch[0], scratch[1], mirrored(boundary))
    return out


def _sheets(state: np.ndarray) -> np.ndarray:
    """(B, N) or (B, H, W) as C-contiguous (B, rows, columns)."""
    sheets = state if state.ndim == 3 else state[:, None]
    return np.ascontiguousarray(sheets)
