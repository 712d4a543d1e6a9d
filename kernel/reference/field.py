"""FitzHugh-Nagumo field, an activator u and an inhibitor v on a grid (FitzHugh 1961; Nagumo 1962; Turing 1952):

    du/dt = Du lap u + u - u^3 - v            = +dPhi/du
    dv/dt = Dv lap v + eps (u - alpha v - beta) = -eps dPhi/dv

Phi = sum u^2/2 - u^4/4 - u v + alpha v^2/2 + beta v - Du/2 |grad u|^2 + Dv/(2 eps) |grad v|^2: u climbs it, v descends.
"""

from typing import NamedTuple

from numpy.typing import NDArray

from .diffusion import laplacian


class Constants(NamedTuple):
    """Of the equations above, Du and Dv in units of dx^2; steps of time dt for u and dt_v for v.

    dt_v = dt is the explicit Euler step. dt_v = dt / (1 + dt eps alpha) takes the decay -eps alpha v at the end of the
    step (semi-implicit): it solves v' = v + dt (Dv lap v + eps (u - beta) - eps alpha v') for v'.
    """

    Du: float
    Dv: float
    eps: float
    alpha: float
    beta: float
    dt: float
    dt_v: float


def rates(out: NDArray, state: NDArray, constants: Constants, boundary: str) -> None:
    """out (2, ...) = du/dt, dv/dt at state (2, ...) = u, v."""
    Du, Dv, eps, alpha, beta, *_ = constants
    u, v = state
    lap_u, lap_v = laplacian(state, boundary)
    out[0] = Du * lap_u + u - u**3 - v
    out[1] = Dv * lap_v + eps * (u - alpha * v - beta)


def advance(state: NDArray, spare: NDArray, steps: int, constants: Constants, boundary: str) -> float:
    """state (2, ...) after `steps` steps of time; `spare`, of its shape, is overwritten.

    Returns the largest |u| or |v|, NaN if there is one.
    """
    for _ in range(steps):
        rates(spare, state, constants, boundary)
        state[0] += constants.dt * spare[0]
        state[1] += constants.dt_v * spare[1]
    return float(abs(state).max())
