"""Networks with a name, and what makes them stable."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import eigsh

from .connections import Dense
from .costs import Cost, CrossEntropy, find_cost
from .errors import EqkernelError
from .interop import to_host, write
from .network import Network
from .schedules import Schedule

# The published setting: 55 free and 14 nudged steps at full feedback. Stable only for hidden weights of a low gain;
# higher input and output gains then keep the signal up (bench/fhn_accuracy.py).
KENDALL = Schedule(
    "55 + 14", gamma=1.0, free_steps=55, nudged_steps=14, order="even-odd", form="mean-difference",
    tolerance=1e-3,
)  # fmt: skip


def fhn(
    *sizes: int,
    gain: float = 1.4,
    input_gain: float | None = None,
    output_gain: float | None = None,
    cost: str | Cost = "cross-entropy",
    schedule: str | Schedule = "single-sweep",
    **options: Any,
) -> Network:
    """A FitzHugh-Nagumo network: layers of "fhn" neurons, s + s^3 = drive (see `eqkernel.neurons`).

    models.fhn(784, 512, 512, 512, 512, 512, 10) is Kendall's, of 1,457,674 parameters. Weights are Gaussian at
    first, of standard deviation gain / sqrt(fan-in); those of layer 1 have input_gain instead, by default twice the
    gain, as the mean square of a pixel is about 0.1, and those of the last layer output_gain, by default the gain.
    `schedule` is any, such as KENDALL; `options` are those of Network: dtype, backend, seed.
    Raises EqkernelError if the layers are coupled so strongly that the equilibrium need not be unique.
    """
    output = None if isinstance(find_cost(cost), CrossEntropy) else "fhn"
    net = Network.dense(*sizes, neuron="fhn", output=output, cost=cost, schedule=schedule, **options)
    gains = [gain] * (len(sizes) - 1)
    gains[-1] = gain if output_gain is None else output_gain
    gains[0] = 2 * gain if input_gain is None else input_gain
    rng = np.random.default_rng(net.seed)
    for parameter, connection in zip(net.parameters, net.connections, strict=True):
        if isinstance(connection, Dense):
            deviation = gains[connection.pre] / np.sqrt(net.sizes[connection.pre])
            write(parameter, deviation * rng.standard_normal(parameter.shape))
    check_coupling(net)
    return net


def check_coupling(network: Network, alpha: float = 0.5) -> float:
    """The coupling of the layers; EqkernelError unless it is below a = 1/alpha - 1.

    The curvature of the energy, diag(a + 3 u^2) - G with G of `coupling_matrix`, is then positive everywhere:
    there is one equilibrium, and it is stable.
    """
    a, found = 1 / alpha - 1, coupling(network)
    if not found < a:
        raise EqkernelError(
            f"unstable: the coupling of the layers is {found:.3g}, and only below a = 1/alpha - 1 = {a:.3g} is "
            f"one equilibrium sure. Lower the gain of the weights, or gamma ({network.gamma:g})"
        )
    return found


def coupling(network: Network) -> float:
    """The largest eigenvalue of the coupling matrix."""
    G = coupling_matrix(network)
    if G.shape[0] < 100:
        return float(eigvalsh(G.toarray())[-1])
    start = np.random.default_rng(0).standard_normal(G.shape[0])
    return float(eigsh(G, 1, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)[0])


def coupling_matrix(network: Network) -> sparse.csr_array:
    """G (N, N), symmetric: how the drives of layers 1..top, N neurons in all, change with their states.

    With feedback gain gamma it is that of the states gamma^(l/2) s_l, for which the ways up and down, W and
    gamma W^T, become sqrt(gamma) W and its transpose.
    """
    sizes = network.sizes[1 : network.top + 1]
    blocks = [[sparse.csr_array((m, n)) for n in sizes] for m in sizes]
    for connection, weight in zip(network.connections, network.parameters, strict=True):
        pre, post = connection.pre, connection.post
        if not pre or post > network.top:
            continue
        half = 0.5 if pre == post else 1.0  # Phi = s . (W s) / 2, which is met twice
        W = sparse.csr_array(half * network.gamma ** ((post - pre) / 2) * to_host(weight).astype(float))
        blocks[post - 1][pre - 1] = blocks[post - 1][pre - 1] + W
        blocks[pre - 1][post - 1] = blocks[pre - 1][post - 1] + W.T
    return sparse.csr_array(sparse.block_array(blocks))
