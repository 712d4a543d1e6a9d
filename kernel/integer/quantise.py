"""From images in [0, 1] and labels to the bytes an integer network takes. The one place with floating point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def integer_images(x: ArrayLike) -> NDArray[np.int8]:
    """Images (B, n) in [0, 1] as (B, n + 1) int8: 127 is 1, and the last input is the bias, always 127."""
    levels = np.rint(np.clip(np.asarray(x, np.float64), 0, 1) * 127).astype(np.int8)
    return np.hstack([levels, np.full((len(levels), 1), 127, np.int8)])


def integer_targets(y: ArrayLike, outputs: int) -> NDArray[np.int8]:
    """Labels (B,) as one-hot targets (B, outputs) int8, 127 for the label."""
    return (np.eye(outputs, dtype=np.int8) * np.int8(127))[np.asarray(y)]
