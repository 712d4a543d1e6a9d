"""From images in [0, 1] and labels to the bytes an integer network takes. The one place with floating point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..costs import one_hot
from ..errors import EqkernelError, as_array


def integer_images(x: ArrayLike) -> NDArray[np.int8]:
    """Images (B, n) in [0, 1] as (B, n + 1) int8: 127 is 1, and the last input is the bias, always 127.

    What lies outside is cut off. Raises EqkernelError for another shape or type, and for a NaN.
    """
    images = as_array("x", x)
    if images.ndim != 2 or images.dtype.kind not in "fiub" or np.isnan(images).any():
        raise EqkernelError(f"x must be real numbers (B, n) without a NaN, not {images.dtype} of shape {images.shape}")
    levels = np.rint(np.clip(images.astype(np.float64), 0, 1) * 127).astype(np.int8)
    return np.hstack([levels, np.full((len(levels), 1), 127, np.int8)])


def integer_targets(y: ArrayLike, outputs: int) -> NDArray[np.int8]:
    """Labels (B,) as one-hot targets (B, outputs) int8, 127 for the label; EqkernelError for labels out of range."""
    labels = as_array("y", y)
    if labels.ndim != 1 or not len(labels):
        raise EqkernelError(f"y must be labels (B,), at least one, not of shape {labels.shape}")
    return one_hot(labels, outputs, np.int8) * np.int8(127)
