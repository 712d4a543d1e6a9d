"""FitzHugh-Nagumo networks: the slaved neuron, the pair (u, v) and its metric, stability, response."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from compiled import BACKENDS, COMPILED
from oracle import Oracle, cosine, relative_error

import eqkernel as eq
from eqkernel import models, response_network
from eqkernel.backends import load_backend
from eqkernel.response_network import linearise_network
from eqkernel.skewgradient import SkewGradient

SETTLED = eq.SCHEDULES["converged"].but(free_steps=5000, nudged_steps=5000, tolerance=1e-13, early_stop=True)
STEPPED = SETTLED.but(form="plus-minus", step=0.15, order="synchronous")  # for (u, v)
COSTS = ("squared-error", "cross-entropy")
SIZES = (6, 8, 7, 3)


def problem(cost="squared-error", schedule=SETTLED, backend="reference", gain=0.2, seed=0):
    """A float64 network with biases, coupled by about 0.5 at gamma 1, and a batch (x, y) of 3."""
    net = models.fhn(*SIZES, gain=gain, cost=cost, schedule=schedule, dtype="float64", backend=backend, seed=seed)
    rng = np.random.default_rng(seed)
    for parameter, connection in zip(net.parameters, net.connections, strict=True):
        if connection.stem == "bias":
            parameter[...] = 0.3 * rng.standard_normal(parameter.shape)
    return net, rng.uniform(-1, 1, (3, SIZES[0])), rng.integers(0, 3, 3)


# -- the neuron -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 1e22), ("float64", 1e180)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rate_solves_the_cubic_to_an_ulp(backend, dtype, largest):
    """Against 60 digits, over the whole range of drives; the bound is what CPU kernels promise."""
    if backend == "reference" and dtype == "float32":
        pytest.skip("the reference is float64")
    largest = min(largest, 1e100 if backend == "reference" else largest)
    size = np.concatenate([np.geomspace(1e-30, largest, 1500), np.linspace(0, 8, 500)])
    drive = np.concatenate([size, -size]).astype(dtype)
    found = np.empty_like(drive)
    load_backend(backend).neurons.rate(found, drive, "fhn")
    with localcontext() as context:
        context.prec = 60
        for d, s in zip(drive.tolist(), found.tolist(), strict=True):
            s, d = Decimal(s), Decimal(d)
            error = abs(s + s**3 - d) / (1 + 3 * s * s)  # Newton's estimate; its own error is of second order
            ulp = Decimal(float(np.spacing(abs(np.asarray(float(s), dtype)))))
            assert error <= Decimal("2.0" if backend == "reference" else "1.0") * ulp, (d, s)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", COMPILED)
def test_a_drive_that_is_no_number_makes_a_rate_that_is_none(backend, dtype):
    """So that a divergence is seen."""
    found = np.zeros(2, dtype)
    load_backend(backend).neurons.rate(found, np.array([np.nan, np.inf], dtype), "fhn")
    assert np.isnan(found).all()


# -- the gradient ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.1])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cost", COSTS)
def test_gradient_of_the_slaved_network(cost, backend, gamma):
    net, x, y = problem(cost, SETTLED.but(gamma=gamma), backend)
    exact = Oracle.of(net).implicit_gradient(x, y)
    for form in ("difference", "mean-difference", "plus-minus"):
        errors = []
        for beta in (1e-1, 1e-2, 1e-3):
            estimate = eq.ep_gradient(net, x, y, beta, schedule=net.schedule.but(form=form))
            errors.append(relative_error(estimate, exact))
        assert cosine(estimate, exact) > 0.9999, form
        assert 50 < errors[0] / errors[1] < 200, f"{form}: {errors}"


def test_implicit_gradient_of_the_cubic_agrees_with_finite_differences():
    net, x, y = problem()
    oracle = Oracle.of(net)
    assert relative_error(oracle.implicit_gradient(x, y), oracle.finite_difference_gradient(x, y)) < 1e-7


@pytest.mark.parametrize("semi_implicit", [True, False])
@pytest.mark.parametrize("order", ["synchronous", "even-odd"])
@pytest.mark.parametrize("cost", COSTS)
def test_the_pair_rests_where_the_slaved_network_does(cost, order, semi_implicit):
    net, x, _ = problem(cost, STEPPED.but(order=order))
    slaved = eq.free_phase(net, x, SETTLED)
    net.engine = SkewGradient(net, semi_implicit=semi_implicit)
    pair = eq.free_phase(net, x)
    assert pair.outcome is eq.Outcome.SETTLED
    for l in range(1, net.top + 1):
        np.testing.assert_allclose(pair.state[l], slaved.state[l], rtol=0, atol=1e-11)
        np.testing.assert_allclose(pair.memory.inhibitor[l], 2 * pair.state[l], rtol=0, atol=1e-11)
    np.testing.assert_allclose(pair.output, slaved.output, rtol=0, atol=1e-11)


def test_another_alpha_and_offset_are_the_slaved_network_in_other_units():
    alpha, offset = 0.4, 0.1
    a = 1 / alpha - 1
    net, x, _ = problem(schedule=STEPPED)
    same = problem()[0]
    for w, scaled, connection in zip(net.parameters, same.parameters, net.connections, strict=True):
        if connection.stem == "bias":
            scaled[...] = (w + offset / alpha) / a**1.5
        else:
            scaled[...] = w / (a**1.5 if connection.pre == 0 else a)
    net.engine = SkewGradient(net, eps=6, alpha=alpha, offset=offset)
    pair, slaved = eq.free_phase(net, x), eq.free_phase(same, x)
    for u, s in zip(pair.state[1:], slaved.state[1:], strict=True):
        np.testing.assert_allclose(u, np.sqrt(a) * s, rtol=0, atol=1e-11)


@pytest.mark.parametrize("nudge", ["frozen", "live"])
@pytest.mark.parametrize("variant", ["centered", "positive", "negative"])
@pytest.mark.parametrize("cost", COSTS)
def test_gradient_of_the_pair(cost, variant, nudge):
    net, x, y = problem(cost, STEPPED.but(nudge=nudge))
    exact = Oracle.of(net).implicit_gradient(x, y)
    net.engine = SkewGradient(net)
    estimate = eq.ep_gradient(net, x, y, 1e-3, variant)
    assert cosine(estimate, exact) > 0.9999
    assert relative_error(estimate, exact) < (1e-4 if variant == "centered" else 1e-2)


def inhibitor_gradient(engine):
    """Of the cost |t - v|^2 / 2 = 4 |t/2 - u|^2 / 2 of the last layer's inhibitor: by nudging v, and exact."""
    net, x, y = problem(schedule=STEPPED)
    net.engine = engine(net, output="v")
    t = np.eye(3)[y]
    np.testing.assert_allclose(eq.free_phase(net, x).output, 2 * Oracle.of(net).equilibrium(x)[-1], atol=1e-11)
    return eq.ep_gradient(net, x, t, 1e-3), [4 * g for g in Oracle.of(net).implicit_gradient(x, t / 2)]


class GradientMetric(SkewGradient):
    """The planted bug: v nudged as if it climbed Phi, as u does."""

    def pulls(self, beta, error):
        return tuple(-pull if self.reads_inhibitor else pull for pull in super().pulls(beta, error))


def test_a_nudge_on_the_inhibitor_has_the_flipped_sign():
    estimate, exact = inhibitor_gradient(SkewGradient)
    assert cosine(estimate, exact) > 0.9999
    assert relative_error(estimate, exact) < 1e-3
    wrong, _ = inhibitor_gradient(GradientMetric)
    assert cosine(wrong, exact) < -0.9


def test_training_steps_learn_in_every_form():
    for engine in (None, lambda net: SkewGradient(net), lambda net: SkewGradient(net, output="v")):
        net, x, y = problem(schedule=SETTLED if engine is None else STEPPED)
        if engine:
            net.engine = engine(net)
        losses = [eq.train_step(net, x, y, beta=0.01, lr=0.1).loss for _ in range(20)]
        assert losses[-1] < 0.7 * losses[0]


# -- the model ------------------------------------------------------------------------------------------------


def test_kendalls_network_has_its_parameters_and_initial_weights():
    net = models.fhn(784, 512, 512, 512, 512, 512, 10)
    assert sum(parameter.size for parameter in net.parameters) == 1_457_674
    assert [layer.neuron for layer in net.layers[1:]] == ["fhn"] * 5 + ["softmax"]
    for parameter, connection in zip(net.parameters, net.connections, strict=True):
        if connection.stem == "bias":
            assert not parameter.any()
        else:
            gain = (2.8 if connection.pre == 0 else 1.4) / np.sqrt(net.sizes[connection.pre])
            assert parameter.std() == pytest.approx(gain, rel=0.05)
            assert abs(parameter.mean()) < 0.05 * gain
    other = models.fhn(784, 512, 512, 512, 512, 512, 10, seed=1, input_gain=7.5, output_gain=0.5)
    assert not (other.parameters[2] == net.parameters[2]).any()
    assert other.parameters[0].std() == pytest.approx(7.5 / np.sqrt(784), rel=0.05)
    assert other.parameters[2].std() == pytest.approx(1.4 / np.sqrt(512), rel=0.05)
    assert other.parameters[10].std() == pytest.approx(0.5 / np.sqrt(512), rel=0.05)


def test_a_saved_network_is_the_same(tmp_path):
    net, x, _ = problem("cross-entropy")
    net.save(tmp_path / "fhn.safetensors")
    loaded = eq.Network.load(tmp_path / "fhn.safetensors", "reference")
    np.testing.assert_array_equal(eq.predict(loaded, x, output=True), eq.predict(net, x, output=True))


@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_coupling_is_the_norm_of_what_layers_do_to_each_other(gamma):
    """Between two layers |W|, in the units gamma^(l/2) s_l; of a wide network by the iterative solver too."""
    net, _, _ = problem("cross-entropy", SETTLED.but(gamma=gamma))
    sizes = net.sizes[1:3]
    w = net.parameters[2]
    full = np.block([[np.zeros((8, 8)), gamma * w.T], [w, np.zeros((7, 7))]])
    units = np.concatenate([np.full(n, gamma ** (l / 2)) for l, n in enumerate(sizes)])
    found = models.coupling_matrix(net).toarray()
    np.testing.assert_allclose(found, full * units[:, None] / units, atol=1e-15)
    assert models.coupling(net) == pytest.approx(np.sqrt(gamma) * np.linalg.norm(w, 2))
    wide = models.fhn(20, 90, 80, 3)
    norm = np.linalg.norm(wide.parameters[2], 2)
    assert models.coupling(wide) == pytest.approx(np.sqrt(wide.gamma) * norm, rel=1e-4)


def test_a_coupling_of_recurrent_layers_counts_their_lateral_weights():
    net = eq.Network.recurrent(6, 8, 3, bound=0.7, neuron="fhn")
    assert models.coupling(net) == pytest.approx(np.linalg.eigvalsh(net.parameters[4])[-1], rel=1e-5)


def test_unstable_networks_are_refused_by_the_condition_they_violate():
    with pytest.raises(eq.EqkernelError, match=r"coupling of the layers is .* below a = 1/alpha - 1 = 1 .*gamma"):
        models.fhn(6, 8, 8, 3, gain=1.4, schedule=SETTLED)
    models.fhn(6, 8, 8, 3, gain=1.4)  # weak feedback is stable
    net, _, _ = problem()
    found = models.coupling(net)
    with pytest.raises(eq.EqkernelError, match=r"only below a = 1/alpha - 1 = 0.111"):
        SkewGradient(net, eps=4, alpha=0.9)
    with pytest.raises(eq.EqkernelError, match=r"eps alpha = 1 does not exceed 1 \+ coupling .* raise eps"):
        SkewGradient(net, eps=2)
    SkewGradient(net, eps=2 * (1.001 + found))
    for constants in ({"alpha": 1.5}, {"eps": np.inf}):
        with pytest.raises(eq.EqkernelError, match="alpha must lie in .* and eps be positive, not"):
            SkewGradient(net, **constants)
    tired = eq.Network([eq.Layer(6), eq.Layer(3, "fhn", 0.1)], [eq.Dense(0, 1)], "squared-error", dtype="float64")
    with pytest.raises(eq.EqkernelError, match="takes no adaptation current"):
        SkewGradient(tired)
    with pytest.raises(eq.EqkernelError, match="softmax readout reads u"):
        SkewGradient(problem("cross-entropy")[0], output="v")
    with pytest.raises(eq.EqkernelError, match="unknown output 'w'"):
        SkewGradient(net, output="w")
    with pytest.raises(eq.EqkernelError, match="only 'fhn' neurons have an inhibitor, not tanh"):
        SkewGradient(eq.Network.dense(6, 8, 3, neuron="tanh"))


def test_the_residual_of_a_pair_is_the_largest_change_of_either():
    net, x, _ = problem(schedule=STEPPED.but(tolerance=None, early_stop=False, free_steps=3))
    net.engine = SkewGradient(net)
    now, before = (eq.free_phase(net, x, net.schedule.but(free_steps=n)) for n in (3, 2))
    moved = [
        max(abs(a - b).max() for a, b in zip(ours[1:], theirs[1:], strict=True))
        for ours, theirs in zip(*((p.memory.state, p.memory.inhibitor) for p in (now, before)), strict=True)
    ]
    assert now.residual == pytest.approx(max(moved)) and moved[1] > moved[0]


def test_a_live_nudge_of_a_readout_follows_the_state():
    net, x, y = problem("cross-entropy", STEPPED)
    net.engine = SkewGradient(net)
    free = eq.free_phase(net, x)
    live, frozen = (
        eq.nudged_phase(net, free, y, 0.5, "positive", net.schedule.but(nudge=nudge)) for nudge in ("live", "frozen")
    )
    assert abs(live.difference[2] - frozen.difference[2]).max() > 1e-4


def test_a_slow_inhibitor_oscillates():
    """eps alpha < 1, past the check: a limit cycle, whose nudged phases would mean nothing."""
    net, x, _ = problem(schedule=STEPPED.but(tolerance=None, early_stop=False, free_steps=4000))
    net.engine = SkewGradient(net)
    assert eq.free_phase(net, x).residual < 1e-12
    net.engine.eps = 0.2
    assert eq.free_phase(net, x).residual > 1e-3


# -- the response ---------------------------------------------------------------------------------------------


def asymmetry(matrix):
    return np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("gamma", [1.0, 0.2])
def test_the_response_is_symmetric_though_the_jacobian_is_not(cost, gamma):
    net, x, _ = problem(cost, SETTLED.but(gamma=gamma))
    response = linearise_network(net, eq.free_phase(net, x).state, sample=1)
    assert asymmetry(response.raw) > 0.05
    assert asymmetry(response.effective) < 1e-12
    assert asymmetry(response.metric @ response.raw) < 1e-12
    n = len(response.u)
    np.testing.assert_allclose(-np.linalg.inv(response.raw)[:n, :n], response.effective, atol=1e-12)


def test_the_response_is_that_of_the_sample_and_the_constants_asked_for(monkeypatch):
    net, x, _ = problem()
    state = eq.free_phase(net, x).state
    response = linearise_network(net, state, eps=3.0, alpha=0.4, sample=1)
    np.testing.assert_array_equal(response.u, np.concatenate([s[1] for s in state[1:]]))
    np.testing.assert_array_equal(response.B, 0.4 * np.eye(len(response.u)))
    assert response.eps == 3.0
    monkeypatch.setattr(response_network, "MOST", len(response.u) - 1)
    with pytest.raises(eq.EqkernelError, match="a network of at most 17"):
        linearise_network(net, state)


@pytest.mark.parametrize("pair", [False, True])
def test_reciprocity_by_finite_currents(pair):
    """A current into neuron i of one layer moves neuron j of another as the same current into j would move i."""
    net, x, _ = problem("squared-error", STEPPED if pair else SETTLED)
    if pair:
        net.engine = SkewGradient(net)
    response = linearise_network(net, eq.free_phase(net, x[:1]).state).effective
    places = {2: (1, 2), 12: (2, 4), 16: (3, 1)}  # row of the matrix: (layer, neuron)
    biases = {c.post: w for c, w in zip(net.connections, net.parameters, strict=True) if c.stem == "bias"}

    def moved(by, step=1e-4):
        layer, neuron = places[by]
        ends = []
        for sign in (1, -1):
            biases[layer][neuron] += sign * step
            ends.append(eq.free_phase(net, x[:1]).state)
            biases[layer][neuron] -= sign * step
        return {j: (ends[0][l][0, n] - ends[1][l][0, n]) / (2 * step) for j, (l, n) in places.items()}

    found = {i: moved(i) for i in places}
    for i in places:
        for j in places:
            assert found[i][j] == pytest.approx(response[j, i], rel=1e-6, abs=1e-9)
            assert found[i][j] == pytest.approx(found[j][i], rel=1e-6, abs=1e-9)


def test_only_fhn_networks_have_this_response():
    net = eq.Network.dense(6, 8, 3, neuron="tanh", dtype="float64", cost="squared-error")
    with pytest.raises(eq.EqkernelError, match="not of linear, tanh"):
        linearise_network(net, [np.zeros((1, n)) for n in net.sizes])
