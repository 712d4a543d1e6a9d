"""JAX: the whole settle, free and nudged phase, as one jitted function of fori_loops; the input drive hoisted
and +beta, -beta as one batch of 2B.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..problem import Problem, States
from .numpy_settle import half_steps


class JaxSettle:
    """`order` "synchronous" or "even-odd", where a `step` above 1 over-relaxes."""

    def __init__(
        self, p: Problem, order: str = "synchronous", free_steps: int = 30, nudged_steps: int = 10, step: float = 1.0
    ):
        self.p = p
        steps = {"free": free_steps, "nudged": nudged_steps, "step": step}
        self.settle = jax.jit(partial(_settle, neuron=p.neuron, gamma=p.gamma, order=order, **steps))
        lateral = [None if a is None else jnp.asarray(a) for a in p.lateral]
        self.arrays = [jnp.asarray(a) for a in p.weights], [jnp.asarray(a) for a in p.biases], lateral
        self.inputs = jnp.asarray(p.x), jnp.asarray(p.target), jnp.float32(p.beta)

    def run(self) -> None:
        self.answer = jax.block_until_ready(self.settle(*self.arrays, *self.inputs))

    def states(self) -> States:
        B = self.p.batch
        free, both = ([np.asarray(a) for a in s] for s in self.answer)
        return States(free, [a[:B] for a in both], [a[B:] for a in both])


def _settle(W, b, A, x, target, beta, *, neuron, gamma, order, free, nudged, step):
    last = len(W) - 1
    drive = x @ W[0].T + b[0]

    def layer(s, l, drive, strength, target):
        u = drive if l == 0 else s[l - 1] @ W[l].T + b[l]
        if l == last:
            return u if strength is None else u + strength * (target - s[l])
        u = u + gamma * (s[l + 1] @ W[l + 1])
        if A[l] is not None:
            u = u + s[l] @ A[l]
        return jnp.tanh(u) if neuron == "tanh" else jnp.clip(u, 0, 1)

    def relax(s, steps, *inputs):
        def synchronous(_, s):
            return [layer(s, l, *inputs) for l in range(last + 1)]

        def even_odd(_, s):
            s = list(s)
            for l in half_steps(last, nudged=inputs[1] is not None):
                new = layer(s, l, *inputs)
                s[l] = new if step == 1 else s[l] + step * (new - s[l])
            return s

        return lax.fori_loop(0, steps, even_odd if order == "even-odd" else synchronous, s)

    zero = [jnp.zeros((len(x), len(bias)), x.dtype) for bias in b]
    settled = relax(zero, free, drive, None, None)
    strength = jnp.repeat(jnp.stack([beta, -beta]), len(x))[:, None]
    pair = [jnp.concatenate([a, a]) for a in settled]
    both = relax(pair, nudged, jnp.concatenate([drive, drive]), strength, jnp.concatenate([target, target]))
    return settled, both
