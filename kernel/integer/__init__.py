"""Equilibrium propagation in integers: the NumPy model of bindings/integer/eqk_int.h, equal to it bit for bit.

Start at docs/porting.md. A `Config` fixes sizes, steps and word lengths; `model` is the specification as NumPy;
`Compiled` runs the C99 source of the same config; `vectors` are what a port must repeat.

    config = Config(65, 64, 10, form="difference")
    masters = initial(config, seed=0)
    status = train_step(config, masters, x, t, rates=(10, 10), batch=0)     # x (B, 65), t (B, 10), both int8
    labels = predict(config, masters, x)
"""

from .compiled import Compiled
from .config import Config
from .model import Report, initial, predict, train_step
from .quantise import integer_images, integer_targets

__all__ = ["Compiled", "Config", "Report", "initial", "integer_images", "integer_targets", "predict", "train_step"]
