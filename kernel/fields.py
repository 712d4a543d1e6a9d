"""Reaction-diffusion fields: FitzHugh-Nagumo, whose quiet state a fast inhibitor makes break into Turing patterns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dctn, idctn, irfftn, rfftn

from .backends import fastest, verbs
from .errors import DivergenceError, EqkernelError, as_array, check_seed, is_finite, is_whole, lookup
from .interop import laid_out
from .reference.diffusion import BEYOND
from .reference.field import Constants, rates

SCHEMES = {"explicit": False, "semi-implicit": True}
# Constants that make a named pattern out of noise.
PRESETS: dict[str, dict[str, float]] = {
    "labyrinth": {"beta": 0.0},
    "spots": {"beta": -0.12},
}


class FitzHughNagumo:
    """du/dt = Du lap u + u - u^3 - v,  dv/dt = Dv lap v + eps (u - alpha v - beta), on a line (N,) or a sheet (H, W).

    Time and space have the units of the constants; dx is the distance of neighbours. `boundary` is "periodic" or
    "neumann" (zero flux), `scheme` the step of v: "explicit", or "semi-implicit", where v decays at the step's end.
    The field starts at its uniform state plus Gaussian noise of that standard deviation. dt is by default 0.9 of
    `dt_limit`, the largest step at which everything that should decay does.

    Raises EqkernelError for a step beyond its limit, negative diffusion, a grid of fewer than 3 cells on a side.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        Du: float = 1.0,
        Dv: float = 20.0,
        eps: float = 1.5,
        alpha: float = 0.8,
        beta: float = 0.0,
        dx: float = 1.0,
        dt: float | None = None,
        boundary: str = "periodic",
        scheme: str = "explicit",
        dtype: str = "float32",
        backend: str = "auto",
        seed: int = 0,
        noise: float = 0.01,
    ) -> None:
        self.shape = _shape(shape)
        given = {"Du": Du, "Dv": Dv, "eps": eps, "alpha": alpha, "beta": beta, "dx": dx, "noise": noise}
        for name, value in given.items():
            if not is_finite(value):
                raise EqkernelError(f"{name} must be a finite number, not {value!r}")
            if name in ("Du", "Dv", "noise") and value < 0:
                what = "a standard deviation" if name == "noise" else "diffusion"
                raise EqkernelError(f"{name} must not be negative: {what} of {value} does not exist")
            if name in ("eps", "alpha", "dx") and value <= 0:
                raise EqkernelError(f"{name} must be positive, not {value}")
        if not 0 < dx * dx < np.inf or 1 / (dx * dx) == np.inf:
            raise EqkernelError(f"dx={dx!r}: 1 / dx^2, by which diffusion is multiplied, is no number that counts")
        check_seed(seed)
        lookup("boundary", boundary, BEYOND)
        if str(dtype) not in ("float32", "float64"):
            raise EqkernelError(f"a field is float32 or float64, not {dtype}")
        self.Du, self.Dv, self.eps, self.alpha, self.beta, self.dx = Du, Dv, eps, alpha, beta, dx
        self.boundary, self.semi_implicit, self.dtype = boundary, lookup("scheme", scheme, SCHEMES), np.dtype(dtype)
        self._kernels = _kernels(backend)

        self.limits = self._limits()
        self.dt = 0.9 * self.dt_limit if dt is None else dt
        if not (is_finite(self.dt) and self.dt > 0):
            raise EqkernelError(f"dt must be positive and finite, not {self.dt!r}")
        for name, (limit, remedy) in self.limits.items():
            if self.dt > limit:
                raise EqkernelError(
                    f"dt = {self.dt:g} is beyond the {name} limit of {limit:g}, where the step itself makes waves "
                    f"grow: choose a smaller dt{remedy}, or leave dt out"
                )
        dt_v = self.dt / (1 + self.dt * eps * alpha) if self.semi_implicit else self.dt
        self.constants = Constants(Du / dx**2, Dv / dx**2, eps, alpha, beta, self.dt, dt_v)

        self.time = 0.0
        u, v = self.uniform
        start = noise * np.random.default_rng(seed).standard_normal((2, *self.shape))
        start[0] += u
        start[1] += v
        self._state = np.ascontiguousarray(start, self.dtype)
        self._spare = np.empty_like(self._state)

    @property
    def u(self) -> NDArray:
        """The activator, of `shape`: a view."""
        return self._state[0]

    @u.setter
    def u(self, value: ArrayLike) -> None:
        self._state[0] = self._checked(value, "u")

    @property
    def v(self) -> NDArray:
        """The inhibitor, of `shape`: a view."""
        return self._state[1]

    @v.setter
    def v(self, value: ArrayLike) -> None:
        self._state[1] = self._checked(value, "v")

    @property
    def uniform(self) -> tuple[float, float]:
        """(u, v) of the uniform stationary state, u - u^3 = v = (u - beta) / alpha; of three, the one in the middle."""
        roots = np.roots([1, 0, 1 / self.alpha - 1, -self.beta / self.alpha])
        u = float(np.median(roots[abs(roots.imag) < 1e-9].real))
        return u, (u - self.beta) / self.alpha

    @property
    def dt_limit(self) -> float:
        """The largest stable step of time, the smaller of `limits`."""
        return min(limit for limit, _ in self.limits.values())

    def step(self, n: int = 1) -> None:
        """n steps of time dt. Raises DivergenceError if the field is no longer finite; it is lost then."""
        if not is_whole(n, 0):
            raise EqkernelError(f"the number of steps must be a whole number of at least 0, not {n!r}")
        largest = self._kernels.advance(self._state, self._spare, int(n), self.constants, self.boundary)
        self.time += n * self.dt
        if not np.isfinite(largest):
            raise DivergenceError(
                f"the field left the finite numbers within {n} steps, by t = {self.time:g}: values far beyond those of "
                f"a pattern (about 1) need a smaller dt than {self.dt:g}"
            )

    def poke(self, x: float, y: float, radius: float, value: float) -> None:
        """Set u to `value` within `radius` of column x, row y, all in cells (on a line y is 0).

        Raises EqkernelError if the disc holds no cell or a number is not finite.
        """
        if not all(map(is_finite, (x, y, radius, value))):
            raise EqkernelError(
                f"a poke needs finite numbers, not x = {x!r}, y = {y!r}, radius = {radius!r}, value = {value!r}"
            )
        if radius < 0:
            raise EqkernelError(f"the radius of a poke must be at least 0, not {radius!r}")
        rows, columns = self.shape if len(self.shape) == 2 else (1, *self.shape)
        down, across = (abs(np.arange(n) - at) for n, at in ((rows, y), (columns, x)))
        if self.boundary == "periodic":
            down, across = np.minimum(down, abs(rows - down)), np.minimum(across, abs(columns - across))
        disc = down[:, None] ** 2 + across**2 <= radius**2
        if not disc.any():
            raise EqkernelError(f"no cell of the {columns} x {rows} grid lies within {radius} of column {x}, row {y}")
        self.u[disc.reshape(self.shape)] = value

    @property
    def residual(self) -> float:
        """The largest |du/dt| or |dv/dt|: zero at a stationary state."""
        out = np.empty_like(self._state)
        rates(out, self._state, self.constants, self.boundary)
        return float(abs(out).max())

    @property
    def energy(self) -> float:
        """E[u] = integral of Du/2 |grad u|^2 - u^2/2 + u^4/4 + (u - beta) B^-1 (u - beta)/2, B = alpha - Dv/eps lap.

        dE/du = -du/dt where v follows u at once, v = B^-1 (u - beta): the Lyapunov function of a fast inhibitor, with
        the same stationary states. Computed in float64.
        """
        u = self.u.astype(float)
        v = self.slaved(u)
        diffused = np.empty((2, *self.shape))
        rates(diffused, np.stack([u, v]), self.constants._replace(eps=0.0), self.boundary)
        laplacian = diffused[0] - u + u**3 + v  # Du lap u
        density = -u * laplacian / 2 - u**2 / 2 + u**4 / 4 + (u - self.beta) * v / 2
        return float(density.sum() * self.dx ** len(self.shape))

    def slaved(self, u: ArrayLike) -> NDArray:
        """v = B^-1 (u - beta), stationary beside u, B = alpha - Dv/eps lap; exact, by cosine or Fourier transform."""
        source = np.broadcast_to(self._checked(u, "u", np.dtype(float)), self.shape) - self.beta
        axes = [self._wavenumbers(n) for n in self.shape]
        if self.boundary == "neumann":
            q = np.add.outer(*axes) if len(axes) == 2 else axes[0]
            return idctn(dctn(source) / (self.alpha + self.Dv / self.eps * q))
        axes[-1] = axes[-1][: self.shape[-1] // 2 + 1]
        q = np.add.outer(*axes) if len(axes) == 2 else axes[0]
        return irfftn(rfftn(source) / (self.alpha + self.Dv / self.eps * q), self.shape)

    def jacobian(self, q: float) -> NDArray:
        """d(du/dt, dv/dt)/d(u, v) at the uniform state for waves of -lap = q (the wavenumber squared): shape (2, 2)."""
        slope = 1 - 3 * self.uniform[0] ** 2
        return np.array([[slope - self.Du * q, -1], [self.eps, -self.eps * self.alpha - self.Dv * q]])

    def _wavenumbers(self, n: int) -> NDArray:
        """-lap of the n modes of an axis, 4/dx^2 sin^2(k dx / 2)."""
        periods = 2 * np.arange(n) if self.boundary == "periodic" else np.arange(n)
        return 4 / self.dx**2 * np.sin(np.pi * periods / (2 * n)) ** 2

    def _limits(self) -> dict[str, tuple[float, str]]:
        """name -> (largest stable dt, what else helps).

        For waves of -lap = q the step multiplies (u, v) by M. A step too long for the fastest decay takes a multiplier
        past -1 ("diffusion": a checkerboard that flips and grows): (1 + m1)(1 + m2) = det(1 + M) > 0 must hold, also
        at the largest |u| that reaction allows, where u decays fastest. A step too long for a decaying rotation takes
        a complex pair past the unit circle ("rotation"): |m|^2 = det M <= 1. Both are polynomials in dt.
        """
        slope = 1 - 3 * self.uniform[0] ** 2
        # |v| <= (U + |beta|) / alpha holds U^3 = U + |v| up.
        top = np.roots([1, 0, -1 - 1 / self.alpha, -abs(self.beta) / self.alpha]).real.max()
        q = np.linspace(0, sum(self._wavenumbers(n).max() for n in self.shape), 1001)
        late = -1 if self.semi_implicit else 1
        decay, d = self.eps * self.alpha, self.Dv * q
        flip = np.inf
        for f in (slope, 1 - 3 * top**2):
            a = f - self.Du * q
            total, product = a - late * decay - d, self.eps - a * (d + late * decay)
            # 4 + 2 total dt + product dt^2 = 0 first at dt = 4 / x.
            x = -total + np.sqrt(np.maximum(total**2 - 4 * product, 0))
            crossing = (total**2 >= 4 * product) & (x > 0)
            flip = min(flip, (4 / x[crossing]).min(initial=np.inf))
        a = slope - self.Du * q
        trace, det = a - decay - d, self.eps - a * (decay + d)
        area = self.eps - a * d if self.semi_implicit else det
        rotating = (trace**2 < 4 * det) & (trace < 0) & (area > 0)
        turn = (-trace[rotating] / area[rotating]).min(initial=np.inf)
        return {"diffusion": (float(flip), ", a larger dx"), "rotation": (float(turn), "")}

    def _checked(self, value: ArrayLike, name: str, dtype: np.dtype | None = None) -> NDArray:
        array = laid_out(name, as_array(name, value), self.dtype if dtype is None else dtype)
        if array.shape not in ((), self.shape):
            raise EqkernelError(f"{name} has shape {self.shape}, not {array.shape}")
        if not np.isfinite(array).all():
            raise EqkernelError(f"{name} holds a NaN or an infinity")
        return array


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    sides: tuple[Any, ...] = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if len(sides) not in (1, 2):
        raise EqkernelError(f"a field is a line (N,) or a sheet (H, W), not of shape {sides}")
    for side in sides:
        if not is_whole(side, 3):
            raise EqkernelError(f"a grid needs at least 3 cells on every side, a whole number: not {side!r} of {sides}")
    return tuple(int(side) for side in sides)


def _kernels(backend: str) -> ModuleType:
    """The module `field` of a backend, by default of the fastest that is here."""
    if backend == "auto":
        backend = fastest()
    found = verbs(backend, "field")
    if found is None:
        raise EqkernelError(f"backend {backend!r} has no field: choose backend='auto'")
    return found
