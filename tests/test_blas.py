"""One thread of BLAS where results must not depend on how many there are; afterwards there are as many as before."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from eqkernel import Lateral
from eqkernel.blas import one_thread
from eqkernel.orthogonal import orthogonalise


def counts():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture
def several():
    with threadpool_limits(2, user_api="blas"):
        if counts() != {2}:
            pytest.skip("NumPy's BLAS has one thread here")
    if counts() == {1}:
        pytest.skip("NumPy's BLAS was given one thread")
    return counts()


def test_there_is_one_thread_within_and_as_many_as_before_afterwards(several):
    with one_thread(np.empty(0)):
        assert counts() == {1}
        with one_thread(np.empty(0)):
            assert counts() == {1}
        assert counts() == {1}
    assert counts() == several
    with pytest.raises(ZeroDivisionError), one_thread(np.empty(0)):
        raise ZeroDivisionError
    assert counts() == several
    with one_thread(None):  # no array of the host
        assert counts() == several


def test_threads_take_turns(several):
    def enter(_):
        with one_thread(np.empty(0)):
            return counts()

    with ThreadPoolExecutor(4) as pool:
        assert set.union(*pool.map(enter, range(200))) == {1}
    assert counts() == several


def projected(weight):
    vectors = Lateral(1, 0.5).project(weight, None)
    return np.hstack([weight, vectors])


@pytest.mark.parametrize(("work", "shape"), [(orthogonalise, (300, 500)), (projected, (400, 400))])
def test_the_bits_are_those_of_one_thread(work, shape, several):
    found = []
    for threads in (1, 2):
        matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        with threadpool_limits(threads, user_api="blas"):
            found.append(work(matrix))
    np.testing.assert_array_equal(*found)
