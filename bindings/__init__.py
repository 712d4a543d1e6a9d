"""The C library: its header (include/), its sources (src/), and the backend `c` that calls it through cffi.

`backend` is what `eqkernel.backends` loads; it can be imported only where the extension was built. `set_precision` lets
it settle with products of bfloat16.
"""

from .precision import get_precision, set_precision

__all__ = ["get_precision", "set_precision"]
