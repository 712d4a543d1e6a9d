"""The reference backend, NumPy in float64: the equations as written, and the specification of every backend.

Start here to port eqkernel. Each file but neurons and field is a connection: a scalar Phi and its derivatives.

    energy(energy, pre, post, weight)    energy[B] -= Phi                   the definition of all below
    drive_post(drive, pre, weight)       drive += dPhi/dpost                what pre does to post
    drive_pre(drive, post, weight)       drive += dPhi/dpre                 the same synapse read backwards
    hebbian(trace, pre, post, scale)     trace += scale sum_B dPhi/dweight  local co-activity

Every verb adds into its first argument, which the caller owns, and returns nothing: the drives of several
connections sum. Shapes: pre (B, n_pre), post (B, n_post), B samples; a drive has its state's shape. What a connection
needs besides comes last (`Connection.extra`): `conv` takes a geometry and the winners of its pooling.
"""

from . import bias, conv, dense, lateral, neurons

__all__ = ["bias", "conv", "dense", "lateral", "neurons"]
