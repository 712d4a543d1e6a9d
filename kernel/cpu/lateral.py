"""Lateral connection within a layer, Phi = s . (W s) / 2: half the dense verbs, read from both sides."""

from __future__ import annotations

import numpy as np

from . import dense


def energy(energy: np.ndarray, pre: np.ndarray, post: np.ndarray, weight: np.ndarray) -> None:
    """energy[b] -= post[b] . (W pre[b]) / 2."""
    whole = np.zeros_like(energy)
    dense.energy(whole, pre, post, weight)
    energy += whole / 2


def drive_post(drive: np.ndarray, pre: np.ndarray, weight: np.ndarray) -> None:
    """drive += W pre / 2."""
    whole = np.zeros_like(drive)
    dense.drive_post(whole, pre, weight)
    drive += whole / 2


def drive_pre(drive: np.ndarray, post: np.ndarray, weight: np.ndarray) -> None:
    """drive += W^T post / 2."""
    whole = np.zeros_like(drive)
    dense.drive_pre(whole, post, weight)
    drive += whole / 2


def hebbian(trace: np.ndarray, pre: np.ndarray, post: np.ndarray, scale: float) -> None:
    """trace += scale / 2 * post^T pre, summed over the batch."""
    dense.hebbian(trace, pre, post, scale / 2)
