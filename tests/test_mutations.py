"""The tests can fail: planted bugs, the usual ones of this trade, are each caught by a check that the tests use."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mutations import (
    CAUGHT,
    CHECKS,
    KERNEL_MUTATIONS,
    MUTATIONS,
    NO_BUGS,
    RATE_MUTATIONS,
    neurons,
    plant,
    run_on_copy,
)

from eqkernel import reference

# A few seconds of compilation each: `make test` plants one in three, `make check-planted` the others.
SAMPLE = KERNEL_MUTATIONS[::3]
SAMPLED = [
    pytest.param(SAMPLE, NO_BUGS[:2], id="sample"),
    pytest.param(
        [m for m in KERNEL_MUTATIONS if m not in SAMPLE], NO_BUGS[2:], id="others", marks=pytest.mark.exhaustive
    ),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_pass_without_a_bug(check):
    CHECKS[check]()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.bug for m in MUTATIONS])
def test_planted_in_the_reference(mutation, monkeypatch):
    plant(monkeypatch, mutation)
    with pytest.raises(CAUGHT):
        CHECKS[mutation.check]()


@pytest.mark.parametrize(("bug", "neuron", "rate"), RATE_MUTATIONS, ids=[m[0] for m in RATE_MUTATIONS])
def test_planted_in_a_rate(bug, neuron, rate, monkeypatch):
    monkeypatch.setitem(reference.neurons.RATE, neuron, rate)
    with pytest.raises(CAUGHT):
        neurons()


@pytest.mark.parametrize(("planted", "harmless"), SAMPLED)
def test_planted_in_compiled_kernels(planted, harmless, tmp_path):
    """Two at a time, as each compiles its copy of the kernels; a copy without a bug passes."""

    def run(mutation):
        folder = tmp_path / str(changes.index(mutation))
        folder.mkdir()
        return mutation[0], run_on_copy(folder, *mutation[1:])

    for check in ("updates", "phases", "gradient"):  # fills the cache for the copies, and passes
        CHECKS[check]("cpu")
    changes = [*planted, *harmless]
    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(pool.map(run, changes))
    assert outcomes == dict.fromkeys((m[0] for m in planted), "caught") | dict.fromkeys(
        (m[0] for m in harmless), "survived"
    )
