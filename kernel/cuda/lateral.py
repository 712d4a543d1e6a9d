"""Lateral connection within a layer, Phi = s . (W s) / 2: half the dense verbs, read from both sides."""

from __future__ import annotations

from typing import Any

from . import dense


def energy(energy: Any, pre: Any, post: Any, weight: Any) -> None:
    """energy[b] -= post[b] . (W pre[b]) / 2."""
    dense.scaled_energy(energy, pre, post, weight, 0.5)


def drive_post(drive: Any, pre: Any, weight: Any) -> None:
    """drive += W pre / 2."""
    dense.scaled_drive_post(drive, pre, weight, 0.5)


def drive_pre(drive: Any, post: Any, weight: Any) -> None:
    """drive += W^T post / 2."""
    dense.scaled_drive_pre(drive, post, weight, 0.5)


def hebbian(trace: Any, pre: Any, post: Any, scale: float) -> None:
    """trace += scale / 2 * post^T pre, summed over the batch."""
    dense.hebbian(trace, pre, post, scale / 2)
