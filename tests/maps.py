"""Convolutions as matrices, for tests: the plainest definition there is, which shares no code with eqkernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Maps:
    """A convolution as a matrix: where each kernel entry stands in it, found by walking over all taps."""

    def __init__(self, conv: Any, pre: tuple[int, ...], post: tuple[int, ...]) -> None:
        (height, width, inputs), (*pooled, outputs) = pre, post
        rows, columns, entries = [], [], []
        self.n_pre, self.n_post, self.pool = height * width * inputs, int(np.prod(post)), conv.pool
        n = 1 if conv.pool == "none" else conv.window
        steps = [(side + 2 * conv.padding - conv.kernel) // conv.stride + 1 for side in (height, width)]
        assert [side // n for side in steps] == pooled
        for i, j, u, v in np.ndindex(*steps, conv.kernel, conv.kernel):
            y, x = i * conv.stride + u - conv.padding, j * conv.stride + v - conv.padding
            if not (0 <= y < height and 0 <= x < width):
                continue
            for o, c in np.ndindex(outputs, inputs):
                rows.append((i * steps[1] + j) * outputs + o)
                columns.append((y * width + x) * inputs + c)
                entries.append(((o * conv.kernel + u) * conv.kernel + v) * inputs + c)
        self.at, self.entries, self.n_map = (rows, columns), entries, steps[0] * steps[1] * outputs
        self.windows = np.array([  # for each post neuron the map positions it pools
            [((i * n + a) * steps[1] + j * n + b) * outputs + o for a in range(n) for b in range(n)]
            for i, j, o in np.ndindex(*pooled, outputs)
        ])  # fmt: skip

    def unpooled(self, weight: NDArray) -> NDArray:
        matrix = np.zeros((self.n_map, self.n_pre))
        matrix[self.at] = weight.reshape(-1)[self.entries]
        return matrix

    def pooling(self, weight: NDArray, pre: NDArray) -> NDArray:
        """P (1 or B, n_post, n_map), given the presynaptic state (B, n_pre)."""
        if self.pool != "max":
            P = np.zeros((1, self.n_post, self.n_map))
            for i, window in enumerate(self.windows):
                P[0, i, window] = 1 / len(window)
            return P
        q = pre @ self.unpooled(weight).T
        best = np.take_along_axis(self.windows[None], q[:, self.windows].argmax(axis=2)[..., None], axis=2)[..., 0]
        return (np.arange(self.n_map) == best[..., None]).astype(float)

    def matrix(self, weight: NDArray, pre: NDArray) -> NDArray:
        """(1 or B, n_post, n_pre)."""
        return self.pooling(weight, pre) @ self.unpooled(weight)

    def kernel(self, weight: NDArray, pre: NDArray, gradient: NDArray) -> NDArray:
        """dL/dK, given dL/dmatrix (B, n_post, n_pre)."""
        on_map = (self.pooling(weight, pre).transpose(0, 2, 1) @ gradient).sum(axis=0)
        out = np.zeros(weight.size)
        np.add.at(out, self.entries, on_map[self.at])
        return out.reshape(weight.shape)
