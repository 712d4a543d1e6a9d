"""Forward error bounds for comparing a backend with the exact arithmetic that the float64 reference stands for.

A sum of n products in any order, with or without fused multiply-adds, errs by at most gamma_n sum |a_k b_k|,
where gamma_n = n u / (1 - n u) and u is the unit roundoff (Higham 2002, section 3.1). So the bound of a verb is
the same verb on absolute values, times gamma_n, n its longest chain of roundings. The reference has the same
bound with its own u.
"""

import numpy as np

from eqkernel import reference
from eqkernel.geometry import AVERAGE, MAX, NONE
from eqkernel.interop import to_host
from eqkernel.neurons import TANH_ORDER

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
SLOPE = {"hard-sigmoid": 1.0, "sigmoid": 0.25, "tanh": 1.0, "linear": 1.0, "fhn": 1.0}  # the steepest
FHN_ROUNDINGS = 3  # an ulp of the root, at most two units, and the rounding of an exact drive


def gamma(n, dtype):
    """gamma_n in arithmetic of `dtype`, and that of the float64 reference on top."""
    return sum(n * u / (1 - n * u) for u in (UNIT[str(dtype)], UNIT["float64"]))


def split_gamma(n):
    """The same of a sum of n products from factors split in two bfloat16, bf16x3 (bindings/src/split.h), in float32.

    w = w_h + w_l + w_r and s likewise, u = 2^-8 the unit of bfloat16: |w - w_h| <= v |w|, v = u / (1 + u), and |w_r| <=
    v |w - w_h|. What is left out, w_h s_r + w_l (s_l + s_r) + w_r s, is at most v^2 (3 + 2 v) < 3 u^2 of |w s|. What is
    summed are 3 n products of at most (1 + v)^2 + 2 v (1 + u) (1 + v) < 1 + 5 u of |w s|. What is smaller than 2^-126
    is taken for zero, which is not counted: the tests' numbers do not come near.
    """
    u = 2.0**-8
    return 3 * u**2 + (1 + 5 * u) * gamma(3 * n, "float32") + gamma(n, "float64")


def tanh_roundings(dtype):
    """Roundings in x P(z) / Q(z), z = x^2, P and Q of degree m with positive coefficients.

    3 m + 1 for each polynomial (Horner's rule, the rounding of z and of a coefficient), 2 for the product and the
    quotient, and 4 for the truncation of the approximant and the clip at +-1.
    """
    return 6 * (TANH_ORDER[np.dtype(dtype)] // 2) + 8


def rate_error(rate, neuron, dtype):
    """Error of rho(drive) for an exact drive, given rho; sigmoid is 1/2 + tanh(d/2)/2."""
    k = tanh_roundings(dtype)
    return {
        "tanh": gamma(k, dtype) * abs(rate),
        "sigmoid": gamma(k / 2 + 2, dtype) * np.ones_like(rate),
        "fhn": gamma(FHN_ROUNDINGS, dtype) * abs(rate),
    }.get(neuron, np.zeros_like(rate))


def difference_error(c, neuron, dtype):
    """Error of rho(m + c/2) - rho(m - c/2) for exact m and c, relative to |c|.

    tanh(c) (1 - tanh(m + c/2) tanh(m - c/2)): three tanh, and |x| (1 - tanh^2 x) < 1/2 for the rounded m +- c/2.
    fhn, c / (1 + p^2 + p q + q^2): p and q err by their own roundings and, as m +- c/2, by one more; the parts of
    the sum err by twice that and 3, and add up to at most three times the sum, for p q may be negative; then the
    sum and the quotient.
    """
    fhn = 3 * (2 * (FHN_ROUNDINGS + 1) + 3) + 2
    roundings = {"hard-sigmoid": 4, "linear": 0, "fhn": fhn}.get(neuron, 3 * tanh_roundings(dtype) + 8)
    return gamma(roundings, dtype) * SLOPE[neuron] * abs(c)


def softmax_roundings(classes, dtype):
    """Roundings in p = e / sum e, relative, but for those of e's exponent d, the drive less the highest: |d| of them.

    e^r = (1 + t) / (1 - t), |t| = |tanh(r/2)| < .172, has twice those of t times .172 / .828, and 5 for r, 1 + t, 1 - t
    and the quotient. In the sum, at least 1, an e weighs as much as it is: |d| e < .37.
    """
    return 2 * (0.42 * tanh_roundings(dtype) + 5) + 1.37 * classes + 1


def softmax_error(classes, dtype):
    """Absolute error of p = e / sum e: p |d| < 1."""
    return gamma(softmax_roundings(classes, dtype) + 1, dtype)


def conv_row_sums(connection, weight, net):
    """Sums of |weights| into every neuron of post and, backwards, into every one of pre; max pooling at its worst."""
    g = connection.geometry(net.shapes)
    up, down = np.zeros((1, g.n_post)), np.zeros((1, g.n_pre))
    winners = np.zeros((1, g.n_post), np.int32)
    reference.conv.choose(winners, np.ones((1, g.n_pre)), weight, g)
    reference.conv.drive_post(up, np.ones((1, g.n_pre)), weight, g, winners)
    spread = g._replace(pool=NONE if g.pool == NONE else AVERAGE)
    most = g.window**2 if g.pool == MAX else 1  # any of a window's places may win
    reference.conv.drive_pre(down, np.full((1, g.n_post), float(most)), weight, spread, None)
    return up[0], down[0]


class Contraction:
    """How far a settle of `net` in its dtype can be from one in exact arithmetic, both with the same steps.

    Let E bound the error of every stored state. A refreshed drive of layer l is then off by at most kappa_l E +
    e_l: kappa_l the largest row sum of its couplings' magnitudes, e_l = gamma_n times the drive of absolute
    values, n the terms in it. Relaxing multiplies that by the slope of rho, adds rho's own error and, for the
    step, 4 roundings of the state. With kappa < 1 the E that reproduces itself bounds every step of every
    order: E = e / (1 - kappa), stale drives included, since they were made from states within E. With `split`, drives
    are sums of split factors.
    """

    def __init__(self, net, schedule, states, beta=0.0, split=False):
        self.net, self.schedule, self.dtype, self.split = net, schedule, str(net.dtype), split
        self.weights = [abs(to_host(w).astype(float)) for w in net.parameters]
        self.size = max(1.0, *(abs(s).max() for s in states))  # of the largest rate, by the reference
        layers, readout = range(1, net.top + 1), len(net.sizes) - 1
        neurons = [net.layers[l].neuron for l in layers]
        self.steepest = max(SLOPE[n] for n in neurons)
        self.rate_error = max(rate_error(np.array(self.size), n, self.dtype) for n in neurons)
        # An adaptation current is within E like the states that it follows.
        self.kappa = self.steepest * max(self.row_sums(l, True) + net.layers[l].adaptation for l in layers)
        self.magnitude = self.size * max(self.row_sums(l, False) + net.layers[l].adaptation for l in layers)
        self.terms = max(self.terms_into(l) for l in range(1, len(net.sizes))) + 10  # gains, halves, partial sums
        # Out of a readout, and back into the layer below it.
        self.fan_out = self.fan_in = self.logit = 0.0
        for c, w in zip(net.connections, self.weights, strict=True):
            if net.has_readout and c.pre == net.top and c.post == readout:
                self.fan_in, self.fan_out = w.sum(axis=1).max(), w.sum(axis=0).max()
        if net.has_readout:
            self.logit = self.size * self.row_sums(readout, coupling=False)
        self.live = abs(beta) * (0.5 * self.fan_in * self.fan_out if net.has_readout else 1.0)
        self.live *= schedule.nudge == "live"
        self.nudged_slope = 1.0 if net.cost.on_rate else self.steepest  # what a nudge does to a state at most

    def drive_gamma(self, terms):
        """gamma_n of a drive."""
        return split_gamma(terms) if self.split else gamma(terms, self.dtype)

    def row_sums(self, layer, coupling):
        """Largest sum of |weights| into a neuron of `layer`; without bias and clamped input if `coupling`."""
        total = np.zeros(self.net.sizes[layer])
        for c, w in zip(self.net.connections, self.weights, strict=True):
            gain = self.schedule.gamma ** (c.post - (c.pre or 0))
            if c.stem == "bias":
                total += 0 if coupling or c.post != layer else np.tile(w, total.size // w.size)
            elif c.post == layer and not (coupling and c.pre == 0):
                total += conv_row_sums(c, w, self.net)[0] if c.stem == "conv" else w.sum(axis=1)
            elif c.pre == layer and c.post <= self.net.top:
                total += gain * (conv_row_sums(c, w, self.net)[1] if c.stem == "conv" else w.sum(axis=0))
        return total.max()

    def terms_into(self, layer):
        """Products and biases that the drive of a neuron of `layer` sums."""
        total = 1
        for c in self.net.connections:
            up, down = c.post == layer and c.pre is not None, c.pre == layer != c.post
            if c.stem == "conv" and (up or down):
                g = c.geometry(self.net.shapes)
                total += g.kernel**2 * (g.pre_channels if up else g.post_channels) + g.window**2 + 1
            else:
                total += up * self.net.sizes[c.pre or 0] + down * self.net.sizes[c.post]
        return total

    def drive_error(self, state_error):
        return self.kappa / self.steepest * state_error + self.drive_gamma(self.terms) * self.magnitude

    def fixed(self, added, kappa):
        """E = slope-weighted error added per step / (1 - kappa), with the rounding of the relaxation step."""
        assert kappa < 0.95, "the test's weights must contract"
        few = gamma(8 if self.net.cost.on_rate else 4, self.dtype)  # a rate is pushed before the step, and back
        return (added + few * 2 * self.size / self.schedule.step) / (1 - kappa)

    def free(self):
        """Bound on the error of every state of the dynamics after the free phase."""
        return self.fixed(self.steepest * self.drive_gamma(self.terms) * self.magnitude + self.rate_error, self.kappa)

    def readout(self, state_error):
        """Bound on the error of the softmax: it halves an error of its drive at most."""
        drive = self.fan_in * state_error + self.drive_gamma(self.terms) * self.logit
        return 0.5 * drive + softmax_error(self.net.sizes[-1], self.dtype)

    def nudge(self, state_error):
        """Bound on the error of the nudge at beta = 1: t - s, or W^T (t - p)."""
        if not self.net.has_readout:
            return state_error + gamma(2, self.dtype) * 2 * self.size
        return self.fan_out * (self.readout(state_error) + self.drive_gamma(self.net.sizes[-1] + 4) * 2)

    def nudged(self, form, beta, variant, nudge_size, largest_difference):
        """Bounds on the errors of mean and difference. nudge_size: of the largest nudge at beta = 1."""
        free = self.free()
        span = 2 * beta if variant == "centered" else beta
        nudge_error = beta * self.nudge(free) + self.drive_gamma(self.terms) * beta * nudge_size
        added = self.steepest * self.drive_gamma(self.terms) * self.magnitude + self.nudged_slope * nudge_error
        if form == "difference" and variant == "centered":
            # d errs by what c and m err: a difference of rates moves with m by that of two slopes, at most 1.
            c = self.kappa / self.steepest * largest_difference + span * nudge_size
            own = self.steepest * self.drive_gamma(self.terms) * c + self.nudged_slope * span * self.nudge(free)
            own += self.steepest * self.drive_error(free) + difference_error(c, self.worst(), self.dtype)
            mean, difference = free, self.fixed(own, self.kappa)
        else:
            # Two states, or as mean and half difference the same two: each within E of its exact one.
            mean = self.fixed(2 * added + 2 * self.rate_error, self.kappa + self.nudged_slope * self.live)
            mean = max(mean, free)
            difference = 2 * mean
        return mean, (difference + gamma(4, self.dtype) * 2 * self.size) / span

    def worst(self):
        """The neuron of the dynamics whose difference errs most."""
        names = {self.net.layers[l].neuron for l in range(1, self.net.top + 1)}
        return max(names, key=lambda n: float(difference_error(np.array(1.0), n, self.dtype)))


def verb_bound(stem, verb, out, arguments, dtype, roundings):
    """gamma_n times the reference verb on absolute values. `energy` subtracts, the other verbs add."""
    size = -abs(out) if verb == "energy" else abs(out)
    sizes = (abs(a) if isinstance(a, np.ndarray | float) else a for a in arguments)
    getattr(getattr(reference, stem), verb)(size, *sizes)
    return gamma(roundings, dtype) * abs(size)
