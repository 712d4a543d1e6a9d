"""Training steps of the pooled network, `models.conv_hopfield`, beside backpropagation of the same in torch.

One half-sweep up and one down, Adam, cross-entropy; weights after three epochs on enlarged digits. Each contestant's
gradient is held to the float64 gradient of the feed-forward pass at the same weights.
"""

from collections.abc import Iterator

import numpy as np

import eqkernel
from eqkernel import Network, models
from eqkernel.training import fit

from .contestants import Entry
from .measure import Row, VerificationError, timed
from .page import POOLED
from .problem import cosines, digits
from .rivals.torch_pooled import TorchPooled, exact_gradient

BATCH, BETA, REFERENCE = 64, 0.2, "torch backprop"
PRODUCTS = 25 * 32 * 24**2 + 25 * 32 * 64 * 8**2 + 10 * 1024  # multiply-adds of one pass up
BACK = PRODUCTS - 25 * 32 * 24**2  # and of one down: the input is clamped


def trained(pool: str) -> Network:
    """The network after three epochs on 1536 digits."""
    net, optimiser = models.conv_hopfield(pool), eqkernel.Adam(1e-3)
    x, y = digits(1536)
    fit(net, x, y, epochs=3, batch=BATCH, beta=BETA, optimiser=optimiser)
    return net


class EqPooled:
    def __init__(self, net: Network, x: np.ndarray, y: np.ndarray, backend: str):
        self.net = Network(net.layers, net.connections, net.cost, net.schedule, backend=backend)
        self.net.buffer[:] = net.buffer
        self.x, self.y, self.optimiser = x, y, eqkernel.Adam(1e-6)

    def run(self) -> None:
        eqkernel.train_step(self.net, self.x, self.y, beta=BETA, optimiser=self.optimiser)

    def gradient(self) -> list[np.ndarray]:
        return eqkernel.ep_gradient(self.net, self.x, self.y, BETA)


def entries_of(pool: str) -> tuple[dict[str, Entry], dict[str, Row]]:
    """The contestants, each of which has been held to the gradient."""
    net, (x, y) = trained(pool), digits(BATCH)
    weights = [parameter.copy() for parameter in net.parameters]
    exact = exact_gradient(weights, x, y, pool)
    contestants = {
        REFERENCE: TorchPooled(weights, x, y, pool, channels_last=False),
        "torch backprop, channels last": TorchPooled(weights, x, y, pool, channels_last=True),
        "eqkernel, single-sweep": EqPooled(net, x, y, "cpu"),
        "eqkernel c, single-sweep": EqPooled(net, x, y, "c"),
    }
    flops = 2.0 * BATCH * (2 * PRODUCTS + BACK)
    entries, seen = {}, {}
    for name, contestant in contestants.items():
        whole, worst = cosines(contestant.gradient(), exact)
        if not (whole > 0.999 and worst > 0.99):
            raise VerificationError(f"pooled {pool}, {name}: cosine {whole:.6f}, worst array {worst:.6f}")
        seen[name] = {"residual": None, "cosine": whole, "worst cosine": worst}
        schedule, steps = ("single-sweep", "1+1") if name.startswith("eqkernel") else ("backprop", "")
        entries[name] = Entry(contestant.run, contestant, schedule, steps, flops)
    return entries, seen


def rows(threads: int, rounds: int, seconds: float) -> Iterator[Row]:
    for pool, net in POOLED.items():
        entries, seen = entries_of(pool)
        yield from timed(net, BATCH, "whole step, pooled", entries, seen, REFERENCE, threads, rounds, seconds)
