"""A trained network as C: its layers, schedule and parameters in one header that `eqkernel.h` understands."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..connections import Conv
from ..errors import EqkernelError
from ..neurons import find_neuron
from ..schedules import FORMS, NUDGES, ORDERS
from ..weightfile import finite_parameters, replacing

if TYPE_CHECKING:
    from ..network import Network

FIELDS = (
    "size", "weight", "bias", "lateral", "neuron", "row", "height", "width", "channels",
    "kernel", "stride", "padding", "pool", "window", "on_rate",
)  # fmt: skip
CURRENT = "adaptation", "tau"
LAYER = np.dtype([(name, np.int64) for name in FIELDS] + [(name, np.float64) for name in CURRENT])  # eqk_layer


def layers_of(network: Network) -> NDArray | None:
    """The layers as the library takes them; None where one is not driven by the one below it and perhaps itself."""
    layers = np.zeros(len(network.layers), LAYER)
    layers["size"], layers["row"] = network.sizes, np.cumsum([0, 0, *network.sizes[1:-1]])
    layers["neuron"] = [find_neuron(layer.neuron).code for layer in network.layers]
    for place, shape in zip(layers, network.shapes, strict=True):
        if len(shape) == 3:
            place["height"], place["width"], place["channels"] = shape
    for place, layer in zip(layers[1:], network.layers[1:], strict=True):
        place["adaptation"], place["tau"] = layer.adaptation, layer.tau
    layers["on_rate"][network.top] = network.cost.on_rate
    column = {"dense": "weight", "conv": "weight", "bias": "bias", "lateral": "lateral"}
    for name in ("weight", "bias", "lateral"):
        layers[name] = -1
    for connection, at in zip(network.connections, network.offsets, strict=True):
        pre = connection.pre if connection.pre is not None else connection.post - 1
        if connection.stem not in column or not connection.post - 1 <= pre <= connection.post:
            return None
        place = layers[connection.post]
        if place[column[connection.stem]] >= 0:
            return None
        place[column[connection.stem]] = at
        if isinstance(connection, Conv):
            g = connection.geometry(network.shapes)
            if connection.post > network.top:
                return None
            for name in ("kernel", "stride", "padding", "pool", "window"):
                place[name] = getattr(g, name)
    return layers if min(layers["weight"][1:].min(), layers["bias"][1:].min()) >= 0 else None


def export_c(network: Network, path: str | PathLike[str]) -> None:
    """Write `network` as a C header: NET_LAYERS, NET_COUNT, NET_PARAMETERS, NET_PARAMETER_COUNT, NET_SCHEDULE.

    Numbers are written in full precision. EqkernelError for a network that the C library does not settle, or whose
    parameters are not finite.
    """
    finite_parameters(network, "export")
    layers = layers_of(network)
    if layers is None:
        raise EqkernelError("the C library settles layers in a chain, with biases and lateral connections")
    s, real = network.schedule, "float" if network.dtype == np.float32 else "double"
    tolerance = s.tolerance if s.early_stop and s.tolerance else 0.0
    digits, end = (9, "f") if real == "float" else (17, "")
    values = [f"{value:.{digits}g}" for value in network.buffer.tolist()]
    numbers = [v + ("" if "." in v or "e" in v else ".0") + end for v in values]
    lines = [
        f"/* {str(network).replace('*/', '* /')}, written by eqkernel: see docs/c.md. */",
        '#include "eqkernel.h"',
        f"enum {{ NET_COUNT = {len(layers)}, NET_PARAMETER_COUNT = {len(numbers)} }};",
        "static const eqk_layer NET_LAYERS[NET_COUNT] = {",
        *("    {" + ", ".join(map(str, row.item())) + "}," for row in layers),
        "};",
        "static const eqk_schedule NET_SCHEDULE = {",
        f"    {s.gamma!r}, {s.step!r}, {tolerance!r}, {s.free_steps}, {s.nudged_steps},",
        f"    {ORDERS[s.order]}, {FORMS[s.form]}, {NUDGES[s.nudge]}, 0",
        "};",
        f"static {real} NET_PARAMETERS[NET_PARAMETER_COUNT] = {{",
        *("    " + ", ".join(numbers[i : i + 8]) + "," for i in range(0, len(numbers), 8)),
        "};",
        "",
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines))
