"""eqkernel: neural networks trained by equilibrium propagation, without backpropagation.

from eqkernel import Network, train_step, predict

net = Network.dense(784, 512, 10)
step = train_step(net, x, y, beta=0.2, lr=0.1)
labels = predict(net, x_test)
"""

from .connections import Bias, Conv, Dense, Lateral
from .cortex import REWARDS, Adjustment, Reward
from .costs import BinaryCrossEntropy, CrossEntropy, SquaredError
from .cpu.threads import get_threads, set_threads
from .errors import BackendError, DivergenceError, EqkernelError
from .learning import Step, ep_gradient, hebbian_update, predict, train_step
from .network import Layer, Network
from .optimisers import SGD, Adam, Momentum, constant, cosine
from .orthogonal import AdaGO, Muon
from .outcomes import Outcome, UnsettledWarning
from .phases import Equilibrium, Nudged, both_phases, free_phase, nudged_phase, settle
from .schedules import SCHEDULES, Schedule

__version__ = "0.1.0"

__all__ = [
    "REWARDS",
    "SCHEDULES",
    "SGD",
    "AdaGO",
    "Adam",
    "Adjustment",
    "BackendError",
    "Bias",
    "BinaryCrossEntropy",
    "Conv",
    "CrossEntropy",
    "Dense",
    "DivergenceError",
    "EqkernelError",
    "Equilibrium",
    "Lateral",
    "Layer",
    "Momentum",
    "Muon",
    "Network",
    "Nudged",
    "Outcome",
    "Reward",
    "Schedule",
    "SquaredError",
    "Step",
    "UnsettledWarning",
    "both_phases",
    "constant",
    "cosine",
    "ep_gradient",
    "free_phase",
    "get_threads",
    "hebbian_update",
    "nudged_phase",
    "predict",
    "set_threads",
    "settle",
    "train_step",
]
