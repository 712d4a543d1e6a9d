"""Networks with a name, and what makes them stable."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import eigsh

from .connections import Bias, Conv, Dense
from .costs import Cost, CrossEntropy, find_cost
from .errors import EqkernelError, is_finite, lookup
from .interop import to_host, write
from .network import Layer, Network
from .schedules import SCHEDULES, Schedule

# The published setting: 55 free and 14 nudged steps at full feedback. Stable only for hidden weights of a low gain;
# higher input and output gains then keep the signal up (bench/fhn_accuracy.py).
KENDALL = Schedule(
    "55 + 14", gamma=1.0, free_steps=55, nudged_steps=14, order="even-odd", form="mean-difference",
    tolerance=1e-3,
)  # fmt: skip

# Feedback weak enough for three half-sweeps to settle strong weights, with a gradient cosine above .999 at the start.
CORTEX = SCHEDULES["few-step"].but(name="cortex", gamma=0.03, nudged_steps=2, tolerance=0.2)
HOPFIELD = SCHEDULES["single-sweep"].but(name="hopfield", gamma=0.01)
CORTEX_NEURONS = {"cortex": ("sigmoid", CORTEX), "raw": ("fhn", SCHEDULES["converged"])}


def cortex_conv(
    neuron: str = "cortex",
    pretrained: bool = False,
    adaptation: float = 0.0,
    schedule: str | Schedule | None = None,
    **options: Any,
) -> Network:
    """Two convolutions and a readout for images of 28 x 28 in [0, 1]: 34,106 weights (docs/cortex-conv.md).

    neuron       "cortex", a leaky integrator with a sigmoid; "raw", the slaved FitzHugh-Nagumo neuron
    pretrained   with the weights that this project trained on MNIST (`neuron` must be "cortex", no adaptation)
    adaptation   strength of an adaptation current in both maps
    Its cost is cross-entropy. `options` are those of Network: dtype, backend, seed.
    """
    kind, plan = lookup("neuron", neuron, CORTEX_NEURONS)
    if pretrained:
        if neuron != "cortex" or adaptation or schedule is not None or set(options) - {"backend"}:
            raise EqkernelError("pretrained weights are those of cortex_conv() as it is: choose only a backend")
        with as_file(files(__package__) / "weights" / "cortex_conv_mnist.safetensors") as path:
            return Network.load(path, **options)
    maps = [Layer((14, 14, 16), kind, adaptation) for _ in range(2)]
    layers = [Layer((28, 28, 1)), *maps, Layer(10, "softmax")]
    wires = [Conv(0, 1, kernel=5, stride=2, padding=2), Bias(1), Conv(1, 2, kernel=3, padding=1), Bias(2)]
    net = Network(layers, [*wires, Dense(2, 3), Bias(3)], schedule=schedule or plan, **options)
    if neuron == "cortex":  # a sparse start, of mean rate .3; a pixel's mean square is about 0.1
        _draw(net, gains=(6.5, 4.0, 1.0), bias=-1.0)
    assert sum(parameter.size for parameter in net.parameters) == 34_106
    return net


def cortex_dense(neuron: str = "cortex", schedule: str | Schedule | None = None, **options: Any) -> Network:
    """The dense network to compare `cortex_conv` with: 784-43-10, 34,195 weights."""
    kind, plan = lookup("neuron", neuron, CORTEX_NEURONS)
    net = Network.dense(784, 43, 10, neuron=kind, schedule=schedule or plan, **options)
    if neuron == "cortex":
        _draw(net, gains=(6.5, 1.0), bias=-1.0)
    return net


def conv_hopfield(
    pool: str = "max", neuron: str = "hard-sigmoid", schedule: str | Schedule = HOPFIELD, **options: Any
) -> Network:
    """The convolutional Hopfield network of the MNIST literature: 32 and 64 maps by 5 x 5 kernels, each pooled by 2.

    Ernoult et al. 2019 and after; 62,346 weights for images of 28 x 28 in [0, 1]; cost and options as `cortex_conv`.
    """
    layers = [Layer((28, 28, 1)), Layer((12, 12, 32), neuron), Layer((4, 4, 64), neuron), Layer(10, "softmax")]
    wires = [Conv(0, 1, kernel=5, pool=pool), Bias(1), Conv(1, 2, kernel=5, pool=pool), Bias(2)]
    net = Network(layers, [*wires, Dense(2, 3), Bias(3)], schedule=schedule, **options)
    _draw(net, gains=(2.0, 1.0, 1.0), bias=0.0)
    return net


def _draw(net: Network, gains: tuple[float, ...], bias: float) -> None:
    """Uniform weights of standard deviation gain / sqrt(fan-in), and `bias` in all layers but the last."""
    rng, left = np.random.default_rng(net.seed), iter(gains)
    for connection, parameter in zip(net.connections, net.parameters, strict=True):
        if connection.pre is None:
            write(parameter, np.array(bias if connection.post < len(net.layers) - 1 else 0.0))
        else:
            limit = next(left) * np.sqrt(3 / parameter[0].size)
            write(parameter, rng.uniform(-limit, limit, parameter.shape))


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
    for name, value in {"gain": gain, "input_gain": input_gain, "output_gain": output_gain}.items():
        if value is not None and not is_finite(value):
            raise EqkernelError(f"{name} must be a finite number, not {value!r}")
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
        if weight.ndim > 2:
            raise EqkernelError(f"connection {connection.name}: the coupling of convolutions is not worked out here")
        half = 0.5 if pre == post else 1.0  # Phi = s . (W s) / 2, which is met twice
        W = sparse.csr_array(half * network.gamma ** ((post - pre) / 2) * to_host(weight).astype(float))
        blocks[post - 1][pre - 1] = blocks[post - 1][pre - 1] + W
        blocks[pre - 1][post - 1] = blocks[pre - 1][post - 1] + W.T
    return sparse.csr_array(sparse.block_array(blocks))
