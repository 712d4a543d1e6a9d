"""What is not a number stays one, in every neuron and backend: a state that has diverged cannot look settled."""

import numpy as np
import pytest
from compiled import COMPILED, MODULES
from test_backends import DTYPES, RATES

from eqkernel import reference

MEAN, CHANGE = np.arange(40) % 7 == 3, np.arange(40) % 5 == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", RATES)
@pytest.mark.parametrize("backend", [*COMPILED, "reference"])
def test_a_nan_stays_one(backend, neuron, dtype):
    neurons = reference.neurons if backend == "reference" else MODULES[backend].neurons
    drive, c, found = (np.full((1, 40), value, dtype) for value in (0.3, 0.2, 0.0))
    drive[0, MEAN], c[0, CHANGE] = np.nan, np.nan
    neurons.rate(found, drive, neuron)
    np.testing.assert_array_equal(np.isnan(found[0]), MEAN)
    neurons.difference(found, drive, c, neuron)
    np.testing.assert_array_equal(np.isnan(found[0]), CHANGE if neuron == "linear" else MEAN | CHANGE)
