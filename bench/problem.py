"""The problems every contestant solves, and the float64 answers they are checked against.

A problem is a rate-form network s_l = rho_l(W_l s_{l-1} + b_l + A_l s_l + gamma W_{l+1}^T s_{l+1}), l = 1..L,
with s_0 = x clamped, rho the hard sigmoid or tanh in the hidden layers and linear in the last one. W_l is
(n_l, n_{l-1}); A_l is symmetric (n_l, n_l) or absent. The cost is either the squared error 1/2 |t - s_L|^2,
whose nudge beta (t - s_L) joins the drive of layer L, or cross-entropy after a softmax readout outside the
dynamics, which sends no feedback.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

Arrays = list[np.ndarray]
RHO: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "hard-sigmoid": (lambda u: np.clip(u, 0, 1), lambda u: ((u > 0) & (u < 1)).astype(u.dtype)),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "linear": (lambda u: u, np.ones_like),
}


@dataclass(frozen=True)
class Problem:
    """Arrays of one network and one batch; `lateral[l-1]` is None where layer l has no lateral connection."""

    sizes: tuple[int, ...]
    weights: Arrays
    biases: Arrays
    lateral: list[np.ndarray | None]
    x: np.ndarray  # (B, n_0)
    labels: np.ndarray  # (B,)
    neuron: str = "hard-sigmoid"
    cost: str = "squared-error"
    gamma: float = 1.0
    beta: float = 0.1

    @property
    def batch(self) -> int:
        return len(self.x)

    @property
    def top(self) -> int:
        """The layer that the cost nudges: the last one inside the dynamics."""
        return len(self.weights) - (self.cost == "cross-entropy")

    @property
    def target(self) -> np.ndarray:
        """One-hot rows (B, n_L)."""
        return np.eye(self.sizes[-1], dtype=self.x.dtype)[self.labels]

    @property
    def name(self) -> str:
        """'784-512-10'; an r marks a layer with lateral connections. Says so where the input has no zero."""
        marks = ["", *("" if a is None else "r" for a in self.lateral)]
        layers = "-".join(f"{n}{mark}" for n, mark in zip(self.sizes, marks, strict=True))
        return layers if (self.x == 0).any() else f"{layers}, no zeros"

    @property
    def parameters(self) -> Arrays:
        """W_1, b_1, [A_1,] W_2, ...: the order in which gradients are listed."""
        layers = zip(self.weights, self.biases, self.lateral, strict=True)
        return [p for layer in layers for p in layer if p is not None]

    def rho(self, l: int) -> str:
        return "linear" if l == len(self.weights) else self.neuron

    def to(self, dtype: str) -> "Problem":
        def cast(arrays: Sequence) -> list:
            return [None if a is None else a.astype(dtype) for a in arrays]

        return replace(self, weights=cast(self.weights), biases=cast(self.biases), lateral=cast(self.lateral),
                       x=self.x.astype(dtype))  # fmt: skip


@dataclass
class States:
    """Settled states, one (B, n_l) array for each of the layers 1..L: free, +beta and -beta."""

    free: Arrays
    plus: Arrays = field(default_factory=list)
    minus: Arrays = field(default_factory=list)


def digits(batch: int, zeros: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 8x8 digits, every pixel drawn 3x3 and framed to 28x28: (B, 784) in [0, 1] and labels
    (B,). 62 % of the pixels are zero; without `zeros`, a tenth of noise fills them in.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(images))[:batch]
    large = np.kron(images[chosen].reshape(-1, 8, 8) / 16, np.ones((3, 3)))
    x = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    if not zeros:
        x = 0.9 * x + 0.1 * (1 - np.random.default_rng(4).random(x.shape))
    return x.astype("float32"), labels[chosen]


def settling(*sizes: int, batch: int, recurrent: bool = False, norm: float = 0.65, zeros: bool = True) -> Problem:
    """A network with gamma = 1 and squared error that 30 synchronous steps settle: every matrix in the loop
    has spectral norm `norm`, the input matrix the usual 1/sqrt(n_0) scale; random weights, digits as input.
    """
    rng = np.random.default_rng(1)

    def scaled(m: np.ndarray) -> np.ndarray:
        return (m * (norm / np.linalg.norm(m, 2))).astype("float32")

    x, labels = digits(batch, zeros)
    weights = [rng.standard_normal((sizes[1], sizes[0])).astype("float32") / np.float32(sizes[0] ** 0.5)]
    weights += [scaled(rng.standard_normal((post, pre))) for pre, post in pairwise(sizes[1:])]
    hidden = [rng.standard_normal((n, n)) for n in sizes[1:-1]]
    lateral = [scaled(a + a.T) if recurrent else None for a in hidden]
    biases = [np.full(n, 0.0 if recurrent else 0.3, "float32") for n in sizes[1:]]
    neuron = "tanh" if recurrent else "hard-sigmoid"
    return Problem(sizes, weights, biases, [*lateral, None], x, labels, neuron=neuron)


def training(*sizes: int, batch: int, gamma: float = 0.0, epochs: int = 3, zeros: bool = True) -> Problem:
    """A feed-forward classifier after `epochs` of backpropagation with Adam on the digits, cross-entropy,
    hard sigmoid: gradients at trained weights are harder to get right than at random ones.
    """
    rng = np.random.default_rng(2)
    weights, biases = [], []
    for pre, post in pairwise(sizes):
        r = (6 / (pre + post)) ** 0.5
        weights.append(rng.uniform(-r, r, (post, pre)))
        biases.append(np.zeros(post))
    x, labels = digits(1536, zeros)
    problem = Problem(sizes, weights, biases, [None] * len(weights), x, labels, cost="cross-entropy")
    problem = problem.to("float32")
    parameters = problem.parameters
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    for step in range(epochs * 24):
        part = slice(step % 24 * 64, step % 24 * 64 + 64)
        gradient = implicit_gradient(replace(problem, x=x[part], labels=labels[part], gamma=0.0))
        for p, g, (m, v) in zip(parameters, gradient, moments, strict=True):
            p += adam_change(g, m, v, step + 1, lr=1e-3)
    return replace(problem, x=x[:batch], labels=labels[:batch], gamma=gamma, beta=0.02)


def adam_change(g: np.ndarray, m: np.ndarray, v: np.ndarray, step: int, lr: float, eps: float = 1e-8) -> np.ndarray:
    """What Adam (Kingma & Ba 2015, betas .9 and .999) adds to a parameter; updates the moments m and v in
    place.
    """
    m += 0.1 * (g - m)
    v += 0.001 * (g * g - v)
    return -lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + eps)


def softmax(u: np.ndarray) -> np.ndarray:
    e = np.exp(u - u.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def drive(p: Problem, s: Arrays, l: int, nudge: float = 0.0, error: np.ndarray | None = None) -> np.ndarray:
    """Drive of layer l (from 1) at the states s = [x, s_1, ...] with a nudge of strength `nudge`: live, or
    frozen at `error` = -dC/ds of the free state.
    """
    u = s[l - 1] @ p.weights[l - 1].T + p.biases[l - 1]
    if p.lateral[l - 1] is not None:
        u = u + s[l] @ p.lateral[l - 1]
    if l < p.top:
        u = u + p.gamma * (s[l + 1] @ p.weights[l])
    if l == p.top and nudge:
        u = u + nudge * (pull(p, s) if error is None else error)
    return u


def pull(p: Problem, s: Arrays) -> np.ndarray:
    """-dC/ds_top for each sample."""
    if p.cost == "squared-error":
        return p.target - s[p.top]
    return (p.target - softmax(s[p.top] @ p.weights[-1].T + p.biases[-1])) @ p.weights[-1]


def residual(p: Problem, states: States, frozen: bool = False) -> tuple[float, float]:
    """max |rho(drive) - s| over units and samples, float64: how far free and nudged states are from rest."""
    p = p.to("float64")

    def furthest(state: Arrays, nudge: float, error: np.ndarray | None = None) -> float:
        s = [p.x, *(a.astype("float64") for a in state)]
        rates = (RHO[p.rho(l)][0](drive(p, s, l, nudge, error)) for l in range(1, p.top + 1))
        return max(float(abs(rate - a).max()) for rate, a in zip(rates, s[1 : p.top + 1], strict=True))

    error = pull(p, [p.x, *(a.astype("float64") for a in states.free)]) if frozen else None
    nudged = max(furthest(states.plus, p.beta, error), furthest(states.minus, -p.beta, error))
    return furthest(states.free, 0.0), nudged


def fixed_point(p: Problem, tolerance: float = 1e-13) -> Arrays:
    """States 1..top of the fixed point, layer after layer up and down again until nothing moves."""
    s = [p.x, *(np.zeros((p.batch, n), p.x.dtype) for n in p.sizes[1 : p.top + 1])]
    loop = p.gamma > 0 or any(a is not None for a in p.lateral)
    tolerance = max(tolerance, 4 * float(np.finfo(p.x.dtype).eps))
    for _ in range(2000):
        change = 0.0
        for l in [*range(1, p.top + 1), *range(p.top - 1, 0, -1)]:
            new = RHO[p.rho(l)][0](drive(p, s, l))
            change = max(change, float(abs(new - s[l]).max()))
            s[l] = new
        if change < tolerance or not loop:
            return s[1:]
    raise ArithmeticError(f"{p.name}: no fixed point within 2000 sweeps (last change {change:.1e})")


def implicit_gradient(p: Problem) -> Arrays:
    """Gradient of the mean cost at the free fixed point, by implicit differentiation, in the order of
    `parameters`.

    With a_l = dL/ds_l and delta_l = rho'(drive_l) a_l: a_l = dC/ds_l + W_{l+1}^T delta_{l+1} + gamma W_l
    delta_{l-1} + A_l delta_l.
    """
    top, s = p.top, [p.x, *fixed_point(p)]
    slope = [None, *(RHO[p.rho(l)][1](drive(p, s, l)) for l in range(1, top + 1))]
    delta = [np.zeros_like(a) for a in s]
    loop = p.gamma > 0 or any(a is not None for a in p.lateral)
    tolerance = 1e-13 if p.x.dtype == np.float64 else 1e-6
    for _ in range(2000):
        change = 0.0
        for l in [*range(top, 0, -1), *range(2, top + 1)]:
            a = -pull(p, s) if l == top else delta[l + 1] @ p.weights[l]
            if l > 1:
                a = a + p.gamma * (delta[l - 1] @ p.weights[l - 1].T)
            if p.lateral[l - 1] is not None:
                a = a + delta[l] @ p.lateral[l - 1]
            change = max(change, float(abs(slope[l] * a - delta[l]).max()))
            delta[l] = slope[l] * a
        if change < tolerance or not loop:
            break
    else:
        raise ArithmeticError(f"{p.name}: the adjoint did not settle (last change {change:.1e})")
    gradient = []
    for l in range(1, top + 1):
        w = delta[l].T @ s[l - 1]
        if l > 1:
            w += p.gamma * (s[l].T @ delta[l - 1])
        gradient += [w / p.batch, delta[l].mean(0)]
        if p.lateral[l - 1] is not None:
            a = delta[l].T @ s[l] / p.batch
            gradient.append((a + a.T) / 2)
    if p.cost == "cross-entropy":
        error = softmax(s[top] @ p.weights[-1].T + p.biases[-1]) - p.target
        gradient += [error.T @ s[top] / p.batch, error.mean(0)]
    return gradient


def contrast(p: Problem, states: States) -> Arrays:
    """The equilibrium-propagation gradient of settled squared-error states, in float64: mean m and difference
    d of the two nudged states, then -gamma^(l-L) / B (d_l m_{l-1}^T + m_l d_{l-1}^T) for W_l.
    """
    p = p.to("float64")
    plus, minus = ([a.astype("float64") for a in s] for s in (states.plus, states.minus))
    m = [p.x, *((a + b) / 2 for a, b in zip(plus, minus, strict=True))]
    d = [np.zeros_like(p.x), *((a - b) / (2 * p.beta) for a, b in zip(plus, minus, strict=True))]
    gradient = []
    for l in range(1, p.top + 1):
        scale = -(p.gamma ** (l - p.top)) / p.batch
        gradient += [scale * (d[l].T @ m[l - 1] + m[l].T @ d[l - 1]), scale * d[l].sum(0)]
        if p.lateral[l - 1] is not None:
            gradient.append(scale / 2 * (d[l].T @ m[l] + m[l].T @ d[l]))
    return gradient


def cosines(a: Arrays, b: Arrays) -> tuple[float, float]:
    """Cosine of two gradients: over all parameters together, and the worst single array."""

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        u, v = u.astype("float64").ravel(), v.astype("float64").ravel()
        return float(u @ v / max(np.linalg.norm(u) * np.linalg.norm(v), 1e-300))

    whole = cosine(np.concatenate([u.ravel() for u in a]), np.concatenate([v.ravel() for v in b]))
    return whole, min(cosine(u, v) for u, v in zip(a, b, strict=True))
