"""What is fixed when an integer network is built: sizes, steps and word lengths; the macros of eqk_int.h by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import EqkernelError, is_whole, lookup

FORMS = {"plus-minus": 0, "difference": 1}
# field: (macro of the C header, least, most)
MACROS = {
    "inputs": ("EQK_NX", 1, 65536),
    "hidden": ("EQK_NH", 1, 65535),
    "outputs": ("EQK_NO", 1, 65535),
    "free_steps": ("EQK_T_FREE", 1, 65535),
    "nudged_steps": ("EQK_T_NUDGED", 1, 65535),
    "leak": ("EQK_LEAK", 0, 7),
    "fraction": ("EQK_FRAC", 0, 7),
    "beta": ("EQK_BETA", 0, 12),
    "gamma": ("EQK_GAMMA", 0, 12),
    "shift1": ("EQK_SHIFT1", 0, 15),
    "shift2": ("EQK_SHIFT2", 0, 15),
    "threshold": ("EQK_THRESHOLD", 0, 126),
    "stochastic": ("EQK_STOCHASTIC", 0, 1),
}


@dataclass(frozen=True)
class Config:
    """Sizes, steps and word lengths of an integer network; a power of two is given by its exponent.

    inputs, hidden, outputs   neurons; an input that is always 127 is the bias
    free_steps, nudged_steps  steps of the two phases
    leak                      a step of relaxation goes 2^-leak of the way
    fraction                  bits of a state below the 7 that other neurons see
    beta, gamma               nudge 2^-beta, gain of feedback 2^-gamma
    shift1, shift2            one step of a weight of the first and second layer is 2^-shift
    threshold                 0 for 8-bit weights, else they are ternary: sign of the master's upper 8 bits beyond it
    stochastic                rounding of the update: 1 stochastic, 0 nearest
    form                      of the nudged phase: "plus-minus" settles at +beta and -beta, "difference" the response
    """

    inputs: int = 65
    hidden: int = 64
    outputs: int = 10
    free_steps: int = 20
    nudged_steps: int = 8
    leak: int = 1
    fraction: int = 7
    beta: int = 1
    gamma: int = 0
    shift1: int = 6
    shift2: int = 6
    threshold: int = 0
    stochastic: int = 1
    form: str = "plus-minus"

    def __post_init__(self) -> None:
        lookup("form", self.form, FORMS)
        for field, (_, least, most) in MACROS.items():
            value = getattr(self, field)
            if not is_whole(value, least) or value > most:
                raise EqkernelError(f"{field} must be a whole number in {least}..{most}, not {value!r}")
        for sources, shift in (("inputs",), self.shift1), (("hidden", "outputs"), self.shift2):
            most, names = 65536 >> max(self.fraction - shift, 0), " and ".join(sources)
            if sum(getattr(self, source) for source in sources) > most:
                raise EqkernelError(f"more than {most} {names} overflow 32 bits: raise the shift or lower fraction")

    @property
    def top(self) -> int:
        """SMAX, the integer that stands for a state of 1."""
        return 127 << self.fraction

    @property
    def ternary(self) -> bool:
        return self.threshold > 0

    def but(self, **changes: Any) -> Config:
        """The same config with some fields changed."""
        return replace(self, **changes)

    def defines(self) -> list[str]:
        """The compiler options that give eqk_int.h this config."""
        options = [f"-D{macro}={getattr(self, field)}" for field, (macro, _, _) in MACROS.items()]
        return [*options, f"-DEQK_INT_DIFFERENCE={FORMS[self.form]}"]
