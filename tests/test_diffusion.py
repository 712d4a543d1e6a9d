"""Diffusion verbs: derivatives of Phi = -D/2 sum_<ij> (s_i - s_j)^2, symmetric, and the same in every backend."""

import numpy as np
import pytest
from compiled import HERE
from scipy import sparse

from eqkernel import EqkernelError
from eqkernel.backends import verbs
from eqkernel.reference import diffusion as reference

BOUNDARIES = ["periodic", "neumann"]
SHAPES = [(3,), (33,), (3, 3), (17, 31), (5, 64)]
D = np.array([0.7])
COMPILED = [pytest.param(verbs(name, "diffusion"), id=name) for name in HERE]
MODULES = [pytest.param(reference, id="reference"), *COMPILED]


def laplacian_matrix(shape, boundary):
    """-lap as a sparse graph Laplacian: degree matrix minus adjacency, built from the list of neighbours."""
    cells = np.arange(np.prod(shape)).reshape(shape)
    pairs = []
    for axis in range(len(shape)):
        right = np.roll(cells, -1, axis)
        kept = [slice(None)] * len(shape)
        if boundary == "neumann":
            kept[axis] = slice(0, -1)
        pairs += [*zip(cells[tuple(kept)].ravel(), right[tuple(kept)].ravel(), strict=True)]
    i, j = np.array(pairs).T
    n = cells.size
    adjacency = sparse.coo_array((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), (n, n)).tocsr()
    return sparse.diags_array(adjacency.sum(axis=1)) - adjacency, np.array(pairs)


def states(shape, batch=2, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, batch, *shape)).astype(dtype)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_verbs_agree_with_a_graph_laplacian(module, shape, boundary):
    """Each drive is half of D lap s; the energy counts every pair of neighbours once."""
    L, pairs = laplacian_matrix(shape, boundary)
    pre, post = states(shape)
    flat_pre, flat_post = (s.reshape(len(s), -1) for s in (pre, post))

    for verb, s in ((module.drive_post, pre), (module.drive_pre, post)):
        drive = np.ones_like(s)
        assert verb(drive, s, D, boundary) is None
        expected = 1 - 0.5 * D * (L @ s.reshape(len(s), -1).T).T.reshape(s.shape)
        np.testing.assert_allclose(drive, expected, atol=1e-13)

    i, j = pairs.T
    phi = -0.5 * D * ((flat_post[:, i] - flat_post[:, j]) * (flat_pre[:, i] - flat_pre[:, j])).sum(axis=1)
    energy = np.ones(2)
    module.energy(energy, pre, post, D, boundary)
    np.testing.assert_allclose(energy, 1 - phi, rtol=1e-12)
    trace = np.ones(1)
    module.hebbian(trace, pre, post, 0.3, boundary)
    np.testing.assert_allclose(trace, 1 + 0.3 * phi.sum() / D, rtol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("module", MODULES)
def test_drives_and_trace_are_derivatives_of_the_energy(module, boundary):
    shape, step = (4, 5), 1e-5
    s = states(shape, batch=1)[0]

    def phi(s, d=D):
        energy = np.zeros(1)
        module.energy(energy, s, s, d, boundary)
        return -energy[0]

    slope = np.zeros_like(s)
    for index in np.ndindex(s.shape):
        shift = np.zeros_like(s)
        shift[index] = step
        slope[index] = (phi(s + shift) - phi(s - shift)) / (2 * step)
    drive = np.zeros_like(s)
    module.drive_post(drive, s, D, boundary)
    module.drive_pre(drive, s, D, boundary)
    np.testing.assert_allclose(drive, slope, atol=1e-8)
    trace = np.zeros(1)
    module.hebbian(trace, s, s, 1.0, boundary)
    np.testing.assert_allclose(trace[0], (phi(s, D + step) - phi(s, D - step)) / (2 * step), rtol=1e-8)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("module", COMPILED)
def test_float32_is_within_its_rounding_of_the_reference(module, boundary):
    """Seven roundings on the way to a drive: n u / (1 - n u) times the drive of absolute values."""
    pre, _ = states((21, 37), dtype="float32")
    drive, exact = np.zeros_like(pre), np.zeros(pre.shape)
    module.drive_post(drive, pre, D.astype("float32"), boundary)
    reference.drive_post(exact, pre.astype(float), D.astype("float32").astype(float), boundary)
    magnitude = np.zeros(pre.shape)
    reference.drive_post(magnitude, abs(pre.astype(float)), D, boundary)
    bound = 8 * 2.0**-24 * (magnitude + 4 * D * abs(pre.astype(float)))
    assert (abs(drive - exact) <= bound).all()


@pytest.mark.parametrize("module", COMPILED)
def test_strided_states_are_read_right_and_never_written_wrong(module):
    pre = states((8, 10))[0]
    strided, exact, drive = pre[:, ::2, 1::3], np.zeros((2, 4, 3)), np.zeros((2, 4, 3))
    module.drive_post(drive, strided, D)
    reference.drive_post(exact, strided, D)
    np.testing.assert_allclose(drive, exact, atol=1e-14)
    with pytest.raises(EqkernelError, match="C-contiguous"):
        module.drive_post(np.zeros((2, 3, 4)).transpose(0, 2, 1), strided, D)


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_boundary_is_named(module):
    with pytest.raises(EqkernelError, match="unknown boundary 'peroidic': did you mean 'periodic'"):
        module.drive_post(np.zeros((1, 4)), np.zeros((1, 4)), D, "peroidic")
