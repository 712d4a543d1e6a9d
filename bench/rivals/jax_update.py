"""JAX: the Hebbian update of the input matrix, (s+ - s-)^T x, and Adam in one jitted function that donates
its state.
"""

import jax
import jax.numpy as jnp
import numpy as np


class JaxUpdate:
    def __init__(self, W: np.ndarray, x: np.ndarray, plus: np.ndarray, minus: np.ndarray, beta: float,
                 lr: float = 1e-3):  # fmt: skip
        self.state = jnp.array(W), jnp.zeros(W.shape), jnp.zeros(W.shape), jnp.float32(0)
        self.x = jnp.asarray(x)
        self.load(plus, minus)
        scale = -1 / (2 * beta * len(x))

        def step(state, x, plus, minus):
            W, m, v, t = state
            g = (scale * (plus - minus)).T @ x
            m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, t + 1
            W = W - lr / (1 - 0.9**t) * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
            return W, m, v, t

        self.step = jax.jit(step, donate_argnums=0)

    def load(self, plus: np.ndarray, minus: np.ndarray) -> None:
        self.plus, self.minus = jnp.asarray(plus), jnp.asarray(minus)

    def run(self) -> None:
        self.state = jax.block_until_ready(self.step(self.state, self.x, self.plus, self.minus))

    def parameters(self) -> list[np.ndarray]:
        return [np.array(self.state[0])]
