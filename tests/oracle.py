"""An oracle for tests: equilibria and exact loss gradients of small networks, in plain NumPy and float64.

It shares no code with eqkernel and knows nothing of nudging: the gradient is that of the mean loss at the
free equilibrium, by the implicit function theorem, and once more by finite differences.

The equilibrium is s_l = rho(drive_l) for l = 1..top, where drive_l sums, over the connections,
    bias     b                            into layer l
    dense    W s_pre                      into layer l = post
             gamma^(post-pre) W^T s_post  back into layer l = pre, for post <= top
    lateral  1/2 (W + W^T) s_l            within layer l
    adaptation  -g s_l                    within layer l
    conv     as dense, its W the matrix of `Maps`: one for each sample if a maximum is pooled
top = L, the last layer; but with cross-entropy layer L is a softmax of its drive, top = L - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from maps import Maps
from numpy.typing import ArrayLike, NDArray


def cubic_root(d: NDArray) -> NDArray:
    """s of s + s^3 = d, by Newton's method from above |s|: it falls monotonically, for the cubic is convex there."""
    size = np.abs(d)
    s = np.minimum(size, np.cbrt(size))
    for _ in range(40):
        s = s - (s + s**3 - size) / (1 + 3 * s**2)
    return np.copysign(s, d)


RATE = {
    "hard-sigmoid": lambda d: np.clip(d, 0, 1),
    "sigmoid": lambda d: 1 / (1 + np.exp(-d)),
    "tanh": np.tanh,
    "linear": lambda d: d,
    "fhn": cubic_root,
}
SLOPE = {
    "hard-sigmoid": lambda d: ((d > 0) & (d < 1)).astype(float),
    "sigmoid": lambda d: 1 / (2 + np.exp(d) + np.exp(-d)),
    "tanh": lambda d: 1 / np.cosh(d) ** 2,
    "linear": np.ones_like,
    "fhn": lambda d: 1 / (1 + 3 * cubic_root(d) ** 2),
}


class Connection(NamedTuple):
    """One parameter array: stem "dense", "conv", "bias" or "lateral", and the layers it joins."""

    stem: str
    pre: int | None
    post: int
    weight: NDArray
    maps: Maps | None = None

    @property
    def joins(self) -> bool:
        """Whether it joins two layers."""
        return self.stem in ("dense", "conv")

    def up(self, s: NDArray, pre: NDArray) -> NDArray:
        """W s, W as the presynaptic state makes it."""
        if self.maps is None:
            return s @ self.weight.T
        return (self.maps.matrix(self.weight, pre) @ s[..., None])[..., 0]

    def down(self, s: NDArray, pre: NDArray) -> NDArray:
        """W^T s."""
        if self.maps is None:
            return s @ self.weight
        return (s[:, None] @ self.maps.matrix(self.weight, pre))[:, 0]

    def outer(self, post: NDArray, pre: NDArray, state: NDArray) -> NDArray:
        """What post pre^T, summed over the batch, is on the weight; `state` is the presynaptic one."""
        if self.maps is None:
            return post.T @ pre
        return self.maps.kernel(self.weight, state, post[:, :, None] * pre[:, None])


@dataclass
class Oracle:
    """A network of layers 0..L: `neurons[l]` names the model of layer l (that of layer 0 is not read)."""

    connections: list[Connection]
    neurons: list[str]
    cost: str = "squared-error"
    gamma: float = 1.0
    adaptation: Sequence[float] = ()
    reward: Any = None  # its `factor` r and `loss` R are functions of a sample's cost C, R' = r

    @classmethod
    def layered(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        laterals: Sequence[ArrayLike | None] = (),
        neuron: str = "tanh",
        cost: str = "squared-error",
        gamma: float = 1.0,
    ) -> Oracle:
        """The chain 0..L: weights (n_l, n_{l-1}), biases (n_l,), laterals (n_l, n_l) or None, l = 1..L."""
        found = [("dense", l, l + 1, w) for l, w in enumerate(weights)]
        found += [("bias", None, l + 1, b) for l, b in enumerate(biases)]
        found += [("lateral", l + 1, l + 1, w) for l, w in enumerate(laterals) if w is not None]
        connections = [Connection(s, pre, post, np.array(w, float)) for s, pre, post, w in found]
        return cls(connections, [neuron] * (len(weights) + 1), cost, gamma)

    @classmethod
    def of(cls, net: Any, gamma: float | None = None) -> Oracle:
        """A float64 copy of an eqkernel Network, its connections in the same order."""
        maps = [Maps(c, net.shapes[c.pre], net.shapes[c.post]) if c.stem == "conv" else None for c in net.connections]
        connections = [
            Connection(c.stem, c.pre, c.post, np.array(w.get() if hasattr(w, "get") else w, float), m)
            for c, w, m in zip(net.connections, net.parameters, maps, strict=True)
        ]
        neurons = [layer.neuron for layer in net.layers]
        adaptation = [layer.adaptation for layer in net.layers]
        return cls(connections, neurons, net.cost.name, net.gamma if gamma is None else gamma, adaptation)

    @property
    def last(self) -> int:
        return len(self.neurons) - 1

    @property
    def top(self) -> int:
        """The highest layer that takes part in the dynamics."""
        return self.last - (self.cost == "cross-entropy")

    def size(self, layer: int) -> int:
        for c in self.connections:
            if layer in (c.pre, c.post) and c.joins:
                shape = (c.maps.n_post, c.maps.n_pre) if c.maps else c.weight.shape
                return shape[0 if layer == c.post else 1]
        raise ValueError(f"no connection reaches layer {layer}")

    def drive(self, layer: int, state: list[NDArray]) -> NDArray:
        total = np.zeros((len(state[0]), self.size(layer)))
        if any(self.adaptation):
            total -= self.adaptation[layer] * state[layer]
        for c in self.connections:
            if c.stem == "bias" and c.post == layer:
                total += np.tile(c.weight, total.shape[1] // c.weight.size)
            elif c.stem == "lateral" and c.post == layer:
                total += state[layer] @ (c.weight + c.weight.T) / 2
            elif c.joins and c.post == layer:
                total += c.up(state[c.pre], state[c.pre])
            elif c.joins and c.pre == layer and c.post <= self.top:
                total += self.gamma ** (c.post - c.pre) * c.down(state[c.post], state[layer])
        return total

    def equilibrium(
        self, x: ArrayLike, start: list[NDArray] | None = None, tolerance: float = 2e-15, sweeps: int = 20_000
    ) -> list[NDArray]:
        """States (B, n_l) of all layers at the free equilibrium; a readout's state is its softmax.

        Gauss-Seidel sweeps up the layers, until one changes no state by more than `tolerance` of the largest.
        """
        x = np.array(x, float)
        state = [x, *(np.zeros((len(x), self.size(l))) for l in range(1, self.last + 1))]
        if start is not None:
            state[1:] = [s.copy() for s in start[1:]]
        for _ in range(sweeps):
            change = 0.0
            for l in range(1, self.top + 1):
                new = RATE[self.neurons[l]](self.drive(l, state))
                change = max(change, abs(new - state[l]).max() / max(1.0, abs(new).max()))
                state[l] = new
            if change <= tolerance:
                break
        else:
            raise RuntimeError(f"no equilibrium: sweep {sweeps} changed a state by {change:.1e}")
        if self.cost == "cross-entropy":
            logits = self.drive(self.last, state)
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            state[-1] = p / p.sum(axis=1, keepdims=True)
        return state

    def targets(self, y: ArrayLike) -> NDArray:
        y = np.asarray(y)
        return np.eye(self.size(self.last))[y] if y.ndim == 1 else y.astype(float)

    def loss(self, x: ArrayLike, y: ArrayLike, start: list[NDArray] | None = None) -> float:
        """Mean over the batch of C, or with a reward of R(C)."""
        costs = self.costs(self.equilibrium(x, start)[-1], self.targets(y))
        return float(np.mean(costs if self.reward is None else self.reward.loss(costs)))

    def costs(self, output: NDArray, target: NDArray) -> NDArray:
        """C of each sample: |t - s|^2 / 2, -sum t ln p, or -sum t ln s + (1 - t) ln(1 - s)."""
        if self.cost == "binary-cross-entropy":
            return -(target * np.log(output) + (1 - target) * np.log(1 - output)).sum(axis=1)
        if self.cost == "cross-entropy":
            return -(target * np.log(output)).sum(axis=1)
        return ((target - output) ** 2).sum(axis=1) / 2

    def implicit_gradient(self, x: ArrayLike, y: ArrayLike, tolerance: float = 2e-15) -> list[NDArray]:
        """dL/dweight of every connection: v = dL/d(drive) solves v = rho' (dC/ds + J^T v), J = d drive/ds."""
        state = self.equilibrium(x)
        batch, error = len(state[0]), state[-1] - self.targets(y)  # dC/ds_L; of a softmax, dC/d(drive_L)
        if self.reward is not None:
            error = error * self.reward.factor(self.costs(state[-1], self.targets(y)))[:, None]
        source = [np.zeros_like(s) for s in state]
        if self.cost == "cross-entropy":
            for c in self.connections:
                if c.joins and c.post == self.last:
                    source[c.pre] += c.down(error, state[c.pre])
        elif self.cost == "binary-cross-entropy":
            source[-1] += error / (state[-1] * (1 - state[-1]))
        else:
            source[-1] += error
        slope = [SLOPE[self.neurons[l]](self.drive(l, state)) for l in range(1, self.top + 1)]
        v = [np.zeros_like(s) for s in state]
        for _ in range(20_000):
            change = 0.0
            for l in range(self.top, 0, -1):
                new = slope[l - 1] * (source[l] + self._transposed(l, v, state))
                change = max(change, abs(new - v[l]).max(initial=0))
                v[l] = new
            if change <= tolerance * max(abs(u).max() for u in v):
                break
        else:
            raise RuntimeError(f"the adjoint did not settle: its last sweep changed it by {change:.1e}")
        if self.cost == "cross-entropy":
            v[-1] = error
        return [self._parameter_gradient(c, state, v) / batch for c in self.connections]

    def _transposed(self, layer: int, v: list[NDArray], state: list[NDArray]) -> NDArray:
        """J^T v in `layer`: what its state does to every drive of the dynamics."""
        total = -self.adaptation[layer] * v[layer] if any(self.adaptation) else np.zeros_like(v[layer])
        for c in self.connections:
            if c.stem == "lateral" and c.post == layer:
                total += v[layer] @ (c.weight + c.weight.T) / 2
            elif c.joins and c.pre == layer and c.post <= self.top:
                total += c.down(v[c.post], state[layer])
            elif c.joins and c.post == layer and c.pre > 0:
                total += self.gamma ** (c.post - c.pre) * c.up(v[c.pre], state[c.pre])
        return total

    def _parameter_gradient(self, connection: Connection, state: list[NDArray], v: list[NDArray]) -> NDArray:
        c, pre, post = connection, connection.pre, connection.post
        if c.stem == "bias":
            return v[post].reshape(-1, c.weight.size).sum(axis=0)
        if c.stem == "lateral":
            return (v[post].T @ state[post] + state[post].T @ v[post]) / 2
        up = c.outer(v[post], state[pre], state[pre])
        if pre == 0 or post > self.top:
            return up
        return up + self.gamma ** (post - pre) * c.outer(state[post], v[pre], state[pre])

    def finite_difference_gradient(self, x: ArrayLike, y: ArrayLike, step: float = 1e-5) -> list[NDArray]:
        """dL/dweight of every connection, by central differences in every entry; for tiny networks."""
        start = self.equilibrium(x)
        gradient = []
        for connection in self.connections:
            entries, slopes = connection.weight.reshape(-1), []
            for i, value in enumerate(entries):
                entries[i] = value + step
                above = self.loss(x, y, start)
                entries[i] = value - step
                below = self.loss(x, y, start)
                entries[i] = value
                slopes.append((above - below) / (2 * step))
            gradient.append(np.reshape(slopes, connection.weight.shape))
        return gradient


def flat(blocks: ArrayLike | Sequence[ArrayLike]) -> NDArray:
    """One float64 vector of an array or of a list of arrays."""
    blocks = blocks if isinstance(blocks, (list, tuple)) else [blocks]
    return np.concatenate([np.ravel(block).astype(float) for block in blocks])


def cosine(a: Any, b: Any) -> float:
    """Cosine of the angle between two arrays, or two lists of arrays, read as one vector each."""
    a, b = flat(a), flat(b)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def relative_error(estimate: Any, exact: Any) -> float:
    """|estimate - exact| / |exact|, Euclidean norms of two arrays or two lists of arrays."""
    estimate, exact = flat(estimate), flat(exact)
    return float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact))
