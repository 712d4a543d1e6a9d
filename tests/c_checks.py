"""The checks that planted bugs of the C library must fail, each of them a test of the suite at a few small sizes."""

from __future__ import annotations

import mutations
import numpy as np
import test_backends
import test_bindings
import test_c_bf16x3
import test_c_jobs
import test_c_winners
import test_c_zeros
import test_conv_backends
import test_cortex
import test_diffusion
import test_field
import test_gradient
import test_independence
import test_verbs
import test_zeros
from mutations import CAUGHT  # noqa: F401  (what a failing check raises)
from test_bindings import lib

import eqkernel as eq
from eqkernel.bindings import backend, library
from eqkernel.geometry import conv_geometry

BOUNDARIES = ("periodic", "neumann")


def verbs(dtype):
    """test_verbs: every verb against the reference; the sizes are those of no vector, and of more than a tile."""
    for stem, verb in test_verbs.VERBS:
        for sizes in ((1, 13, 97), (33, 47, 37)):
            test_verbs.check_verb(stem, verb, dtype, *sizes, 0, backend)


def neurons(dtype):
    """test_verbs: rates, relaxation, differences, potentials, softmax."""
    for neuron in test_verbs.RATES:
        test_verbs.check_rates(neuron, dtype, 33, 0, backend)
        test_verbs.test_potential_and_softmax("c", neuron, dtype)


def phases(dtype):
    """test_backends: phases of orders and forms, wide layers, and a tolerance that is met."""
    mutations.phases("c", dtype)
    test_backends.check_wide("c", dtype)
    mutations.settled("c")


def adaptation(dtype):
    """test_cortex: fused phases of a network that adapts."""
    for order in test_cortex.ORDERS:
        test_cortex.test_fused_phases_of_a_network_that_adapts("c", order, dtype)


def conv_verbs(dtype):
    """test_conv_backends: verbs and choices of convolutions."""
    for seed, pool in enumerate(("none", "max", "average")):
        geometry = conv_geometry("here", (7, 9, 2), (4, 5, 17) if pool == "none" else (2, 2, 17), 3, 2, 1, pool, 2)
        for verb in test_conv_backends.VERBS:
            test_conv_backends.check_verb(verb, dtype, 9, geometry, seed, backend)
        test_conv_backends.check_choice(dtype, 9, geometry, seed, backend)


def conv_phases(dtype):
    """test_conv_backends: phases of fused convolutions, rates nudged, winners that move."""
    for form in ("mean-difference", "plus-minus"):
        stopped = test_conv_backends.STOPPED.but(form=form)
        test_conv_backends.check_moving_winners(test_conv_backends.moving_winners("c", dtype, stopped))
    for form, nudge in test_gradient.FORMS:
        schedule = eq.Schedule("drawn", 0.5, 2, 2, "sweep", form, nudge, None)
        layers = [eq.Layer((7, 9, 2)), eq.Layer((4, 5, 17), "tanh"), eq.Layer(3, "sigmoid")]
        wires = [eq.Conv(0, 1, 3, 2, 1), eq.Dense(1, 2), eq.Bias(1), eq.Bias(2)]
        net = eq.Network(layers, wires, "binary-cross-entropy", schedule, dtype, "c")
        test_backends.contract(net)
        test_conv_backends.check_fused(net)
        test_backends.check_phases(net, 17, 0)


def conv_updates(dtype):
    """test_conv_backends: updates of fused convolutions."""
    for pool in ("average", "max"):
        test_backends.check_updates(mutations.conv_net("c", "few-step", pool), "SGD", 9, 0)


def winners(dtype):
    """test_c_winners: what is not finite, room for frames; test_conv_backends: winners noted, shares of filters."""
    for verb in ("drive_pre", "hebbian"):
        test_c_winners.check_infinity(verb, np.inf, dtype)
        test_c_winners.check_bits(verb, dtype)
    for kind in test_conv_backends.NOTING:
        for threads in (1, 2):
            test_conv_backends.check_noted(kind, dtype, threads, "c")
    for pool in test_c_winners.POOLED:
        test_c_winners.check_room(pool, dtype)


def gradient(dtype):
    """test_gradient: the gradient of the loss, float64."""
    mutations.gradient("c")


def updates(dtype):
    """test_backends: the optimisers against their papers, with a readout and without."""
    mutations.updates("c", dtype)


def one_pass(dtype):
    """test_gradient: one half-sweep each way, float64."""
    mutations.one_pass("c")


def paces(dtype):
    """test_backends: which schedules leave a product out of their update."""
    test_backends.check_paces("c", dtype)


def zeros(dtype):
    """test_c_zeros: updates without zeros, of shares too, and those that must not leave any out."""
    for pattern in ("input", "differences"):
        for batch in (3, 40, 70):
            test_c_zeros.check_gradient(batch, dtype, pattern)
        test_c_zeros.check_infinity(40, dtype, pattern, "sgd", 0.1, 3)


def bands(dtype):
    """test_c_zeros: weights with moments learn as in other variants, in the order in which they lie or not."""
    for sizes in (test_c_zeros.SIZES, test_c_zeros.LONG):
        for pattern in ("none", "input", "differences"):
            for batch in (64, 130):
                test_c_zeros.check_variants(batch, dtype, pattern, "adam", sizes)


def drives(dtype):
    """test_c_zeros: tiles to the bits of samples alone, and weights that are not finite."""
    for make in (test_zeros.resting, test_zeros.scattered):
        test_zeros.check_tiles(dtype, "c", make, batches=(17, 64), counts=(1,))
    for bad in (np.nan, np.inf):
        test_zeros.check_bad_weight(bad, dtype, "c")
    test_zeros.check_weight_that_keeps_at_rest(dtype, "c")
    test_c_zeros.test_the_list_of_a_drive_stays_in_the_workspace(528, dtype)
    test_c_zeros.test_the_samples_of_a_drive_stay_in_the_workspace(dtype)


def same_bits(dtype):
    """test_bindings: verbs are the same bits in every variant."""
    for stem, verb in test_verbs.VERBS:
        test_bindings.test_verbs_are_the_same_bits_in_every_variant(stem, verb, dtype, (7, 31, 65))


def steps(dtype):
    """test_c_bf16x3: steps in one call are those of the phases, in full precision."""
    test_c_bf16x3.check_steps()


def shares(dtype):
    """test_c_jobs: tiles and shares in any order make the whole."""
    test_c_jobs.test_tiles_and_shares_make_the_whole_in_any_order(dtype)


def residuals(dtype):
    """test_independence: spare lanes have no say in a residual."""
    for neuron in ("tanh", "sigmoid"):
        test_independence.test_residual_and_steps_are_those_of_the_slowest_sample("c", neuron, dtype, False)


def workspaces(dtype):
    """test_c_jobs: working memory is as large as was asked for, no larger is used, and what stood there is not."""
    for order in test_c_jobs.ORDERS:
        for form in test_c_jobs.FORMS:
            test_c_jobs.test_what_stood_in_the_workspace_does_not_matter(order, form, dtype)
    for adaptation in (0.0, 0.3):
        test_c_jobs.test_nothing_is_written_beyond_the_workspace(dtype, adaptation)


def diffusion(dtype):
    """test_diffusion: verbs against a graph Laplacian, float64."""
    for boundary in BOUNDARIES:
        test_diffusion.test_verbs_agree_with_a_graph_laplacian(backend.diffusion, (17, 31), boundary)


def field(dtype):
    """test_field: steps against a sparse matrix, float64."""
    for boundary in BOUNDARIES:
        test_field.test_steps_agree_with_a_sparse_matrix("c", (37, 41), boundary)
        test_field.test_steps_agree_with_a_sparse_matrix("c", (1100,), boundary)


def divergence(dtype):
    """test_c_jobs: a step that leaves the finite numbers says so and does not learn."""
    for cause in ("a weight is NaN", "weights that amplify"):
        test_c_jobs.test_a_step_that_diverges_says_so_and_does_not_learn(cause, dtype)


def samples(dtype):
    """test_c_jobs: samples that are not finite are refused by the tiles that have them."""
    for value in (np.nan, np.inf):
        test_c_jobs.test_samples_that_are_not_finite_are_refused_where_they_count(dtype, value)


def refusals(dtype):
    """test_bindings, test_c_jobs: jobs and verbs that cannot be done are refused."""
    for what in test_bindings.SPOILT:
        test_bindings.test_a_job_that_cannot_be_done_is_refused_and_nothing_written(what)
    for name in test_bindings.POINTERS:
        test_bindings.test_a_misaligned_pointer_is_refused(name)
    test_bindings.test_a_step_that_could_only_make_nans_is_refused()
    test_bindings.test_labels_outside_the_classes_are_refused()
    for verb in test_c_jobs.VERBS:
        test_c_jobs.test_a_verb_refuses_what_it_cannot_do(verb, "f32" if dtype == "float32" else "f64")


def _in_both_kinds(check):
    """The library of planted bugs has AMX, emulated, besides what the processor has."""
    for kind in test_c_bf16x3.KINDS:
        with test_c_bf16x3.settling(kind):
            check()


def bf16x3_products(dtype):
    """test_c_bf16x3: products within the bounds of their parts, of fewer and more than a block."""
    for sizes in ((1, 33, 40), (33, 47, 35)):
        _in_both_kinds(lambda sizes=sizes: test_c_bf16x3.check_products(*sizes, 0))


def bf16x3_phases(dtype):
    """test_c_bf16x3: phases of a network of several layers, with lateral connections."""
    schedule = test_c_bf16x3.ONE.but(free_steps=3, nudged_steps=3, order="even-odd")
    net = eq.Network.recurrent(37, 33, 18, 5, schedule=schedule, backend="c")
    test_backends.contract(net)
    _in_both_kinds(lambda: test_backends.check_phases(net, 17, 0, split=True))


def bf16x3_bits(dtype):
    """test_c_bf16x3: the same bits in any batch; and the kind that is asked for, the best of which is AMX."""
    rng, found = np.random.default_rng(0), []
    x, net = rng.random((5, 70)), eq.Network.dense(70, 50, 3, schedule="few-step", backend="c")
    for kind in ("bf16x3-avx512", "bf16x3-amx", "bf16x3"):
        with test_c_bf16x3.settling(kind):
            found.append(eq.free_phase(net, x).state[1])
            test_c_bf16x3.check_bits(batches=(1, 17))
    assert not np.array_equal(found[0], found[1]) and np.array_equal(found[1], found[2])


def bf16x3_memory(dtype):
    """test_c_bf16x3: memory that was never set is not read, nor what lies beyond; shares of packing."""
    _in_both_kinds(test_c_bf16x3.check_memory)


def bf16x3_steps(dtype):
    """test_c_bf16x3: weights that have changed are packed again."""
    _in_both_kinds(test_c_bf16x3.check_steps)


def bf16x3_refusals(dtype):
    """test_c_bf16x3: precisions that cannot be had."""
    test_c_bf16x3.test_a_job_of_another_precision_is_refused()


def dispatch(dtype):
    """The variant that is named is the one that runs, and "auto" is the best: for a library of marked variants."""
    test_bindings.test_there_is_more_than_one_variant_on_x86()
    for name in (*test_bindings.VARIANTS, "auto"):
        library.use_variant(name)
        ran = test_bindings.VARIANTS.index(name) + 1 if name != "auto" else lib.eqk_best_variant()
        for precision in test_verbs.DTYPES:
            state = np.zeros(1, precision)
            backend.neurons.relax(state, np.zeros(1, precision), 1.0, "linear")
            assert state == ran, f"{name}: {state}"
