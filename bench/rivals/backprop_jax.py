"""JAX, feed-forward backpropagation of the same net: value_and_grad and the optimiser in one jitted function
whose parameters are donated.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..problem import Problem


class JaxBackprop:
    """`optimiser` "sgd" or "adam" (betas .9 and .999)."""

    def __init__(self, p: Problem, optimiser: str = "sgd", lr: float = 1e-4, eps: float = 1e-8):
        self.x, self.labels = jnp.asarray(p.x), jnp.asarray(p.labels)
        self.theta = [jnp.array(a) for a in p.parameters]  # W_1, b_1, W_2, ...
        zeros = [(jnp.zeros_like(a), jnp.zeros_like(a)) for a in self.theta]
        self.state = (zeros, jnp.float32(0)) if optimiser == "adam" else None

        def loss(theta, x, labels):
            *hidden, (W, b) = zip(theta[::2], theta[1::2], strict=True)
            for V, c in hidden:
                x = jnp.clip(x @ V.T + c, 0, 1)
            logits = jax.nn.log_softmax(x @ W.T + b)
            return -jnp.take_along_axis(logits, labels[:, None], 1).mean()

        def step(theta, state, x, labels):
            value, gradient = jax.value_and_grad(loss)(theta, x, labels)
            if state is None:
                return [a - lr * g for a, g in zip(theta, gradient, strict=True)], None, value
            moments, t = state
            t = t + 1
            moments = [
                (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g) for g, (m, v) in zip(gradient, moments, strict=True)
            ]
            first, second = 1 - 0.9**t, 1 - 0.999**t
            change = [m / first / (jnp.sqrt(v / second) + eps) for m, v in moments]
            return [a - lr * c for a, c in zip(theta, change, strict=True)], (moments, t), value

        self.step = jax.jit(step, donate_argnums=(0, 1))

    def run(self) -> None:
        self.theta, self.state, loss = self.step(self.theta, self.state, self.x, self.labels)
        loss.block_until_ready()
        jax.block_until_ready(self.theta)

    def parameters(self) -> list[np.ndarray]:
        return [np.array(a) for a in self.theta]
