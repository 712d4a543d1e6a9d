"""Planted bugs: small changes of eqkernel's source, each with the check of the real tests that must fail on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from inspect import getsource, unwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import test_backends
import test_bptt
import test_conv
import test_conv_backends
import test_cortex
import test_gradient
import test_verbs
import test_zeros

import eqkernel as eq
from eqkernel import costs, cpu, network, optimisers, reference, relaxation
from eqkernel.geometry import conv_geometry

GRADIENT = (
    ("1 hidden", "cross-entropy"),
    ("3 hidden", "squared-error"),
    ("recurrent", "cross-entropy"),
    ("1 hidden", "binary-cross-entropy"),
)


# -- the checks ----------------------------------------------------------------------------------------------------


def gradient(backend="reference"):
    """test_gradient: cosine and order of the error, gamma 0.5, every kind of network."""
    for kind, cost in GRADIENT:
        net, x, y = test_gradient.problem(kind, cost, 0.5, backend)
        test_gradient.check_cosines(net, x, y)
        test_gradient.check_order_of_error(net, x, y)


def convolution(backend="reference"):
    """test_conv: verbs against the matrix, adjoints, taps; and the gradient of conv nets."""
    for case in test_conv.CASES[::5]:
        test_conv.check_verbs(*case)
        test_conv.check_adjoint(*case)
        test_conv.check_taps(*case)
    pooled_gradient(backend)


def adjoint(backend="reference"):
    """test_conv: the adjoints alone."""
    for case in test_conv.CASES:
        test_conv.check_adjoint(*case)


def taps(backend="reference"):
    """test_conv: the trace against slopes of the energy alone."""
    for case in test_conv.CASES[::7]:
        test_conv.check_taps(*case)


def pooled_gradient(backend="reference"):
    """test_gradient: a net with max-pooling."""
    net, x, y = test_gradient.problem("conv, max", "cross-entropy", 0.5, backend)
    test_gradient.check_settled(net, x, y)
    test_gradient.check_cosines(net, x, y)
    test_gradient.check_order_of_error(net, x, y)


def settled(backend="reference"):
    """test_gradient: phases stop at their tolerance, at the equilibrium."""
    test_gradient.check_settled(*test_gradient.problem("recurrent", backend=backend))


def bptt(backend="reference"):
    """test_bptt, on a small network."""
    test_bptt.check_against_bptt(*test_bptt.problem(backend, (40, 30, 20, 10)))


def neurons(backend=cpu):
    """test_verbs: rates, relaxation and differences."""
    for neuron in test_verbs.RATES:
        test_verbs.check_rates(neuron, "float64", 33, 0, backend)


def phases(backend="cpu", dtype="float64"):
    """test_backends: phases of a few networks, orders and forms, against the reference."""
    for order, step in (("synchronous", 0.5), ("even-odd", 1.0), ("sweep", 1.0)):
        for form, nudge in test_gradient.FORMS:
            schedule = eq.Schedule("drawn", 0.5, 2, 2, order, form, nudge, None, step=step)
            net = eq.Network.recurrent(7, 13, 6, 5, schedule=schedule, dtype=dtype, backend=backend)
            test_backends.contract(net)
            test_backends.check_phases(net, 17, 0)
            test_backends.check_phases(net, 17, 0, "negative")


def conv_net(backend, schedule, pool):
    """Two convolutions, of a map that is no square, the second pooled; couplings that contract."""
    layers = [eq.Layer((7, 9, 2)), eq.Layer((4, 5, 17), "tanh"), eq.Layer((2, 2, 5), "tanh"), eq.Layer(3, "softmax")]
    wires = [eq.Conv(0, 1, 3, 2, 1), eq.Conv(1, 2, 3, 1, 1, pool, 2), eq.Dense(2, 3), *map(eq.Bias, (1, 2, 3))]
    net = eq.Network(layers, wires, "cross-entropy", schedule, "float64", backend)
    test_backends.contract(net)
    return net


def conv_verbs(backend="cpu"):
    """test_conv_backends: verbs and choices of convolutions."""
    for seed, pool in enumerate(("none", "max", "average")):
        geometry = conv_geometry("here", (7, 9, 2), (4, 5, 17) if pool == "none" else (2, 2, 17), 3, 2, 1, pool, 2)
        for verb in test_conv_backends.VERBS:
            test_conv_backends.check_verb(verb, "float64", 9, geometry, seed)
        test_conv_backends.check_choice("float64", 9, geometry, seed)


def winners(backend="cpu"):
    """test_conv_backends: a network whose winners move."""
    test_conv_backends.check_moving_winners(test_conv_backends.moving_winners(backend))


def noted(backend="cpu"):
    """test_conv_backends: winners that are noted."""
    for kind in test_conv_backends.NOTING:
        test_conv_backends.check_noted(kind, "float64", 2, "cpu")


def conv_updates(backend="cpu"):
    """test_conv_backends: updates of fused convolutions."""
    test_backends.check_updates(conv_net(backend, "few-step", "average"), "SGD", 9, 0)


def updates(backend="reference", dtype="float64"):
    """test_backends: the optimisers against their papers."""
    plan = eq.Schedule("drawn", gamma=0.5, nudged_steps=3)
    net = eq.Network.recurrent(7, 13, 6, 5, bound=1e6, schedule=plan, dtype=dtype, backend=backend)
    for kind in test_backends.OPTIMISERS:
        test_backends.check_updates(net, kind, 17, 0)


def one_pass(backend="reference"):
    """test_gradient: one half-sweep each way, in fused kernels too."""
    for kind in ("3 hidden", "conv, average"):
        test_gradient.check_one_pass(*test_gradient.problem(kind, "cross-entropy", 0.5, backend), 0.5)


def paces(backend="cpu", dtype="float64"):
    """test_backends: which schedules leave a product out of their update."""
    test_backends.check_paces(backend, dtype)


def zeros(backend="cpu"):
    """test_zeros: Hebbian products and drives to the bit, and what is not finite."""
    for share in test_zeros.SPARE:
        test_zeros.test_the_gradient_is_that_of_the_verbs_to_the_bit(share, "float32")
    test_zeros.test_what_is_not_finite_is_not_hidden(np.inf, "float32")
    for make in (test_zeros.resting, test_zeros.scattered):
        test_zeros.test_a_tile_settles_to_the_bits_of_its_samples_alone("float32", make)
    test_zeros.test_a_weight_that_meets_zeros_alone_is_not_hidden(np.nan, "float32")


def cortex(backend="reference"):
    """test_cortex: adaptation, adjustment and reward."""
    test_cortex.test_the_gradient_stays_exact("3 hidden", 0.4, 0.4, "error")
    test_cortex.test_a_linear_neuron_tires_as_the_matrix_power_says(0.5, 2.0, 1.0)
    test_cortex.test_an_adjustment_is_what_its_steps_do_one_by_one("positive")
    test_cortex.test_a_network_that_adapts_settles_to_the_same_equilibrium_in_every_order("sweep")


# A check fails by an assertion, or by a warning or refusal on its way there.
CAUGHT = (AssertionError, eq.EqkernelError, eq.UnsettledWarning, RuntimeWarning)
ALL = cortex, gradient, convolution, adjoint, taps, pooled_gradient, settled, bptt, neurons, phases, updates, one_pass
KERNELS = conv_verbs, winners, noted, conv_updates, paces, zeros
CHECKS = {check.__name__: check for check in ALL + KERNELS}


# -- the bugs ------------------------------------------------------------------------------------------------------


class Mutation(NamedTuple):
    """`old` becomes `new` in the function `name` of `owner`, a module or a class; `check` must fail."""

    bug: str
    owner: Any
    name: str
    old: str
    new: str
    check: str = "gradient"


R, Relaxation, READOUT = reference, relaxation.Relaxation, "network.cost.error(free.state[-1], target)"
Engine = cpu.layered.Layered
SGD, Momentum, Adam = optimisers.Optimiser, optimisers.Momentum, optimisers.Adam
# fmt: off
MUTATIONS = [Mutation(*row) for row in (
    # connections
    ("sign of the trace", R.dense, "hebbian", "trace += scale", "trace -= scale"),
    ("trace transposed", R.dense, "hebbian", "(post.T @ pre)",
     "(pre.T @ post if pre.shape == post.shape else post.T @ pre)"),
    ("feedback through W, not its transpose", R.dense, "drive_pre", "post @ weight",
     "post @ (weight.T if drive.shape == post.shape else weight)"),
    ("missing half in the lateral trace", R.lateral, "hebbian", "0.5 * scale", "scale"),
    ("missing half in the lateral drive", R.lateral, "drive_post", "0.5 * (pre", "1.0 * (pre"),
    ("dropped bias", R.bias, "drive_post", "+= np", "+= 0 * np"),
    # convolution
    ("flip forgotten", R.conv, "drive_pre", "[:, ::-1, ::-1]", "[:, :, :]", "adjoint"),
    ("flip of rows alone", R.conv, "drive_pre", "[:, ::-1, ::-1]", "[:, ::-1]", "adjoint"),
    ("stride phase", R.conv, "drive_pre", "first = k - 1 - g.padding", "first = (k - 1 - g.padding) // S * S",
     "adjoint"),
    ("stride forgotten in the trace", R.conv, "hebbian", "[:, :: geometry.stride, :: geometry.stride]",
     "[:, : geometry.map_height, : geometry.map_width]", "taps"),
    ("border tap dropped", R.conv, "hebbian", "product.transpose(0, 2, 3, 1)",
     "(product * (np.arange(geometry.kernel) > 0)).transpose(0, 2, 3, 1)", "taps"),
    ("padding of ones", R.conv, "padded", "(0, 0)))", "(0, 0)), constant_values=1)", "convolution"),
    ("taps in columns", R.conv, "convolve", "(3, 1, 2)", "(3, 2, 1)", "convolution"),
    ("rim pooled", R.conv, "unpooled", "q[:, : H * n, : W * n]", "q[:, -H * n :, -W * n :]", "adjoint"),
    ("places in columns", R.conv, "windows", "(0, 1, 3, 5, 2, 4)", "(0, 1, 3, 5, 4, 2)", "convolution"),
    ("average is a sum", R.conv, "shares", "1 / places", "1.0", "convolution"),
    ("the least wins", R.conv, "choose", "argmax", "argmin", "convolution"),
    ("winners never chosen", Relaxation, "refresh_up", "connection.chooses and", "False and", "pooled_gradient"),
    ("update of the first place", Relaxation, "gradient", "if connection.chooses", "if False", "pooled_gradient"),
    ("a map's bias by neuron", R.bias, "by_position", "-1, len(weight))", "len(weight), -1).swapaxes(1, 2)",
     "convolution"),
    # gradient
    ("batch sum for batch mean", Relaxation, "gradient", " / len(mean[0])", ""),
    ("half of the contrast dropped", Relaxation, "gradient", "if pre and", "if False and"),
    ("a pass up learns backwards", Relaxation, "gradient", "not schedule.feed_forward", "True", "one_pass"),
    ("gamma to a wrong power", network.Network, "scale", "post - self.top", "post - self.top - 1"),
    ("gamma on the readout", network.Network, "scale", "connection.post > self.top", "False"),
    # drives and nudge
    ("gamma to a wrong power in the feedback", Relaxation, "refresh_down", "connection.post - layer",
     "connection.post"),
    ("no feedback", Relaxation, "refresh_down", "down += ", "down += 0 * "),
    ("nudge on the wrong layer", Relaxation, "drive", "layer == self.network.top", "layer == 1"),
    ("nudge of the wrong sign", costs.Cost, "error", "return target - output", "return output - target"),
    ("rate nudged through the drive", Relaxation, "drive", "not self.network.cost.on_rate", "True"),
    ("rate not nudged", Relaxation, "push", "self.network.cost.on_rate", "False"),
    ("push of the states lost", Relaxation, "_relax", "schedule.step * push", "0 * push"),
    # cortical parts
    ("adaptation of the wrong sign", Relaxation, "drive", "total -= total", "total += total", "cortex"),
    ("adaptation of the mean alone", Relaxation, "_move", "self.adapt(channel, layer, step)",
     "(0.0 if channel.is_difference else self.adapt(channel, layer, step))", "cortex"),
    ("tau ignored", Relaxation, "adapt", "step / neurons.tau", "step", "cortex"),
    ("reward of the batch, not of the sample", eq.cortex, "rewarded", "factor[:, None]", "factor.mean()", "cortex"),
    ("adjusted towards rest", test_cortex, "adjusted", "s + kept * (m - s)", "kept * m", "cortex"),
    # phases
    ("phases swapped", Relaxation, "nudged", "(p - m) / span", "(m - p) / span"),
    ("one side divided by 2 beta", Relaxation, "nudged", 'if variant == "centered" else beta', "if variant else beta"),
    ("nudged states in the free state's memory", Relaxation, "nudged", "free.copy(network) for _", "free for _"),
    ("nudged phase from a stale free state", Relaxation, "nudged", "free.copy(network) for _",
     "self.free(x, schedule.but(free_steps=1))[0] for _", "bptt"),
    ("live nudge left frozen", Relaxation, "nudged", 'schedule.nudge == "live"', "False", "phases"),
    ("no delta rule on the readout", Relaxation, "nudged", f"difference[-1] = {READOUT}",
     "difference[-1] = 0 * target"),
    # order and tolerance
    ("layers of one parity never relax", Relaxation, "visits", "(first + 1) % 2)", "first % 2)"),
    ("nudged phase begins at the wrong parity", Relaxation, "visits", "top if nudged else 1", "1", "phases"),
    ("sweeps begin the wrong way", Relaxation, "visits", "(number % 2 == 0) != nudged", "number % 2 == 0", "phases"),
    ("synchronous layers one by one", Relaxation, "visits", "yield list(range(1, top + 1)), True, True",
     "yield from (([l], True, True) for l in range(1, top + 1))", "bptt"),
    ("tolerance ignored", Relaxation, "settle", "residual < (schedule.tolerance or 0)", "False", "settled"),
    ("tolerance taken for met", Relaxation, "settle", "residual < (schedule.tolerance or 0)", "True", "settled"),
    # winners that are noted
    ("noted after a step back", Engine, "_notes_winners", "schedule.free_steps % 2 == 1 and", "", "noted"),
    ("noted in any order", Engine, "_notes_winners", "c.order == tiles.SWEEP and", "", "noted"),
    ("noted before a phase stopped", Engine, "_notes_winners", " and c.stop == 0", "", "noted"),
    ("noted of a mean that moves", Engine, "_notes_winners", "forward and self", "forward or self", "noted"),
    # neurons
    ("wrong clip in the difference", R.neurons, "clip_difference", "1 - m, -half", "1 - m, 0", "neurons"),
    ("sign of the difference lost", R.neurons, "tanh_difference", "np.copysign(rise, c)", "rise", "neurons"),
    ("relaxation step ignored", R.neurons, "relax", "step * (RATE", "1 * (RATE", "neurons"),
    # optimisers
    ("velocity does not decay", Momentum, "direction", "velocity *= self.momentum", "velocity *= 1", "updates"),
    ("bias correction a step late", Adam, "hyper", "self.steps + 1", "self.steps + 2", "updates"),
    ("eps under the root", Adam, "direction", "_square * square) + eps", "_square * square + eps)", "updates"),
    ("weight decay coupled", SGD, "learn", "weight *= 1 - rate * self.weight_decay",
     "gradient = gradient + self.weight_decay * weight", "updates"),
    ("biases decay", SGD, "apply", "decay=connection.pre is not None", "decay=True", "updates"),
    ("rate schedule ignored", SGD, "rate", "self.lr * float(factor)", "self.lr", "updates"),
)]
# fmt: on
RATE_MUTATIONS = [
    ("clip to [-1, 1]", "hard-sigmoid", lambda d: np.clip(d, -1, 1)),
    ("tanh for a sigmoid", "sigmoid", np.tanh),
]


def plant(monkeypatch, mutation):
    """Replace the function by one compiled from its changed source, among the names of its own module."""
    function = getattr(mutation.owner, mutation.name)
    source = textwrap.dedent(getsource(function))
    assert source.count(mutation.old) == 1, f"`{mutation.old}` occurs {source.count(mutation.old)} times"
    changed = "from __future__ import annotations\n" + source.replace(mutation.old, mutation.new)
    names: dict[str, Any] = {}
    exec(compile(changed, mutation.bug, "exec"), unwrap(function).__globals__, names)
    monkeypatch.setattr(mutation.owner, mutation.name, names[mutation.name])
    for neuron, entry in getattr(mutation.owner, "DIFFERENCE", {}).items():
        if entry is function:
            monkeypatch.setitem(mutation.owner.DIFFERENCE, neuron, names[mutation.name])


# Bugs in compiled kernels: what, file of the CPU backend, old and new text, check.
KERNEL_MUTATIONS = [
    ("missing half in the lateral update", "update.py", "real(0.5, rate) * scales", "scales", "updates"),
    ("readout learns like a hidden layer", "update.py", "layer > 1 and not readout", "layer > 1", "gradient"),
    ("a pass up learns backwards", "update.py", " and not feed_forward)", ")", "one_pass"),
    ("laterals learn from one end", "update.py", "plan[layer, LATERAL], ONE,",
     "plan[layer, LATERAL], int(not feed_forward),", "paces"),
    (
        "size of the gradient for its square",
        "update.py",
        "fresh_b * gradient[i] * gradient[i]",
        "(one - b) * abs(gradient[i])",
        "updates",
    ),
    ("free state not restarted", "chain.py", "        clear(plan, tile, lanes, FREE)\n", "", "phases"),
    (
        "drive from above dropped, in a file that cached kernels of another hold",
        "neurons.py",
        "(tanh(drive[i] + more[i]) - state[i])",
        "(tanh(drive[i]) - state[i])",
        "phases",
    ),
    ("kernel not turned round", "correlate.py", "(taps_x - 1 - tx) * stride", "tx * stride", "conv_verbs"),
    ("phase of the stride", "correlate.py", "phase_x = (x0 + padding) % stride", "phase_x = x0", "conv_verbs"),
    ("border tap dropped", "correlate.py", "source_w - left)", "source_w - 1 - left)", "conv_verbs"),
    ("the last of equals wins", "pooling.py", "code if values[i] >", "code if values[i] >=", "conv_verbs"),
    ("a difference keeps its own winners", "drives.py", "channel if biased else MEAN,", "channel,", "winners"),
    ("winners of a tile's first samples", "chain.py", "batch * plan[layer, ROW] + first * n, n, tile",
     "batch * plan[layer, ROW], n, tile", "noted"),
    ("an average is a sum", "correlate.py", "share * weight", "weight", "conv_verbs"),
    ("averaged kernels a pixel apart", "correlate.py", "x * shape[STEP] * shape[PRE_C]\n                for",
     "x * shape[PRE_C]\n                for", "conv_verbs"),
    ("a tap learns from one row of a window", "trace.py", "sums + y * shape[STEP] * columns", "sums", "conv_verbs"),
    ("layers that move taken for resting", "drives.py", "if largest != 0:", "if largest > 1:", "phases"),
    ("frame off by a row", "trace.py", "(y + padding) * wide", "y * wide", "conv_verbs"),
    ("one zero of a pair drops both", "zeros.py", "batch) | word_of", "batch) & word_of", "zeros"),
    ("samples after the last summed", "zeros.py", "word & (((ONE + ONE) << (samples - 1)) - 1)", "word", "zeros"),
    ("sums of earlier samples lost", "zeros.py", "partial + c if first > 0 else -ONE", "-ONE", "zeros"),
    ("an infinite mean unseen", "zeros.py", "way == BY_POST and not all", "False and not all", "zeros"),
    ("an infinite difference unseen", "zeros.py", "way == BY_PRE and not all", "False and not all", "zeros"),
    ("rest of a tile's first half alone", "zeros.py", "nonzeros(tile, row) | nonzeros(tile, row + last)",
     "nonzeros(tile, row)", "zeros"),
    ("an infinite weight unseen", "layered.py", "x, schedule, self._finite(len(x), 1)", "x, schedule, True", "zeros"),
    ("an infinite weight unseen when nudged", "layered.py", "self._finite(len(x), 2)", "True", "zeros"),
    ("biases of a map's first place", "update.py", "batch * n, plan[layer, BIASES])", "batch * n, n)", "conv_updates"),
]  # fmt: skip
# Changes that change nothing, which the checks must let pass: a line more at the top of a file.
NO_BUGS = [
    (f"none in {file}, {check}", file, "from __future__", "\nfrom __future__", check)
    for file, check in (("update.py", "updates"), ("correlate.py", "conv_verbs"), ("update.py", "gradient"),
                        ("chain.py", "phases"), ("drives.py", "zeros"), ("pooling.py", "winners"),
                        ("update.py", "conv_updates"))
]  # fmt: skip


def run_on_copy(folder, file, old, new, check):
    """Run a check of the CPU backend on a changed copy of the package in `folder`: "caught" or "survived".

    Numba's cache is copied too: a kernel of it that would still be used, though a file it holds has changed, lets the
    bug survive. Those that are compiled anew are not optimised, which takes half the time.
    """
    shutil.copytree(Path(eq.__file__).parent, folder / "eqkernel")
    source = folder / "eqkernel" / "cpu" / file
    text = source.read_text()
    assert text.count(old) == 1, f"`{old}` occurs {text.count(old)} times in {file}"
    source.write_text(text.replace(old, new))
    paths = [str(folder), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import mutations; mutations.report({check!r}, {str(folder)!r})"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_OPT": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def report(check, folder):
    """Print "caught" if the check fails on the CPU backend of the package in `folder`, else "survived"."""
    assert eq.__file__.startswith(folder), f"{eq.__file__} is not the copy in {folder}"
    try:
        CHECKS[check]("cpu")
    except CAUGHT:
        print("caught")
    else:
        print("survived")
