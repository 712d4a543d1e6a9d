"""What tests of the CUDA backend share: twins of networks on the device, and verbs that take host arrays."""

from types import SimpleNamespace

import numpy as np

import eqkernel as eq
from eqkernel.cuda import device
from eqkernel.interop import to_host, write


def on_cuda(net):
    """The same network on backend "cuda", parameters and all."""
    twin = eq.Network(net.layers, net.connections, net.cost, net.schedule, str(net.dtype), "cuda", net.seed)
    write(twin.buffer, to_host(net.buffer))
    return twin


def bridge(module):
    """The verbs of a module of backend "cuda" on host arrays, as tests written for the host call them."""

    def on_host(verb):
        def call(out, *arguments, **options):
            upload = device.current().arrays.asarray
            there = upload(out)
            verb(there, *(upload(a) if isinstance(a, np.ndarray) else a for a in arguments), **options)
            out[...] = there.get()

        return call

    names = ("energy", "drive_post", "drive_pre", "hebbian", "rate", "relax", "difference", "potential")
    return SimpleNamespace(**{name: on_host(getattr(module, name)) for name in names if hasattr(module, name)})


def backend():
    """Backend "cuda" for checks that take host arrays."""
    from eqkernel import cuda

    stems = ("dense", "bias", "lateral", "diffusion", "neurons")
    return SimpleNamespace(**{stem: bridge(getattr(cuda, stem)) for stem in stems})
