"""How a settled FitzHugh-Nagumo network answers a small current: `eqkernel.response`, for layers.

About a rest state the layers 1..top obey d/dt (du, dv) = J (du, dv) + (i, 0), with A = -(1 - 3 u^2) - G, G the
symmetric coupling of the layers, and B = alpha. M = A + B^-1 is the curvature of the slaved network's energy, so a
current into one neuron moves any other as much as the same current there would move it. With feedback gain
gamma < 1 that holds in the units gamma^(l/2) u_l of layer l, and gamma^(l/2) i_l.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import EqkernelError
from .models import coupling_matrix
from .network import Network
from .response import MOST, Response


def linearise_network(
    network: Network, state: list[NDArray], eps: float = 4.0, alpha: float = 0.5, sample: int = 0
) -> Response:
    """The response of layers 1..top, n neurons in all, about the rest state of one sample of `state`: [(B, n_l)].

    Raises EqkernelError for neurons other than "fhn", and for too many of them: every matrix is dense.
    """
    layers = range(1, network.top + 1)
    others = {network.layers[l].neuron for l in layers} - {"fhn"}
    if others:
        raise EqkernelError(f"the response is that of 'fhn' neurons, not of {', '.join(sorted(others))}")
    u = np.concatenate([state[l][sample] for l in layers]).astype(float)
    if u.size > MOST:
        raise EqkernelError(f"the response of {u.size} neurons is a dense matrix: choose a network of at most {MOST}")
    A = -np.diag(1 - 3 * u * u) - coupling_matrix(network).toarray()
    return Response(u, A, alpha * np.eye(u.size), eps)
