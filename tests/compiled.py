"""The backends that tests run for: those of compiled kernels, and all. One that is missing here is skipped, with the
reason."""

import pytest

from eqkernel import Network
from eqkernel.backends import choose, load_backend, unavailable


def _param(name):
    reason = unavailable(name)
    return pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=f"backend {name!r}: {reason}"))


COMPILED = [_param("cpu"), _param("c")]
BACKENDS = [*COMPILED, _param("reference")]
HERE = [name for name in ("cpu", "c") if not unavailable(name)]  # where a test draws one of them
FASTEST = choose("auto", Network.dense(2, 3, 2))
MODULES = {name: load_backend(name) for name in HERE}
