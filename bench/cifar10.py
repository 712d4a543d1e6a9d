"""An example: a small convolutional network learns a part of CIFAR-10 by equilibrium propagation.

    python -m bench.cifar10 [--images 10000] [--epochs 5]

Two convolutions of stride 2 and a readout, 5,000 test images. If the data are the JPEG re-encodings that
`eqkernel.data.load_cifar10` also reads, they are slightly lossy, and so is any figure that they lead to. Untuned: it
shows how colour images enter a network, not how well one can learn them.
"""

from __future__ import annotations

import click
import numpy as np
from numpy.typing import NDArray

import eqkernel as eq
from eqkernel.data import load_cifar10
from eqkernel.training import fit

# The feedback and half-sweeps that the settings below were chosen with.
SCHEDULE = eq.SCHEDULES["few-step"].but(gamma=0.01, nudged_steps=3, tolerance=0.2)


def channels_last(x: NDArray) -> NDArray:
    """Rows (n, 3 * 32 * 32) of colour planes as rows of maps (32, 32, 3), centred."""
    return np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).reshape(len(x), -1) - np.float32(0.5)


def network(seed: int = 0) -> eq.Network:
    """3 x 32 x 32 -> 32 maps of 16 x 16 -> 64 maps of 8 x 8 -> 10 classes."""
    layers = [
        eq.Layer((32, 32, 3)), eq.Layer((16, 16, 32), "sigmoid"), eq.Layer((8, 8, 64), "sigmoid"),
        eq.Layer(10, "softmax"),
    ]  # fmt: skip
    wires = [eq.Conv(0, 1, kernel=5, stride=2, padding=2), eq.Conv(1, 2, kernel=3, stride=2, padding=1), eq.Dense(2, 3)]
    net = eq.Network(layers, [*wires, *map(eq.Bias, (1, 2, 3))], schedule=SCHEDULE, seed=seed)
    rng = np.random.default_rng(seed)
    for weight, gain in zip(net.parameters[:3], (4.0, 4.0, 1.0), strict=True):
        weight[...] = gain / np.sqrt(weight[0].size) * rng.standard_normal(weight.shape)
    for bias in net.parameters[3:5]:
        bias[...] = -1  # a sparse start
    return net


@click.command(help=__doc__)
@click.option("--images", type=click.IntRange(64), default=10_000, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True)
@click.option("--data", "folder", help="Folder of CIFAR-10.")
def main(images: int, epochs: int, folder: str | None) -> None:
    """Train, and print the accuracy after every epoch."""
    x, y, x_test, y_test = load_cifar10(folder)
    x, y, x_test, y_test = channels_last(x[:images]), y[:images], channels_last(x_test[:5000]), y_test[:5000]
    net = network()
    optimiser = eq.Muon(0.05, weight_decay=0.02, schedule=eq.cosine(epochs * -(-len(x) // 64), 50))
    print(net)

    def tell(epoch) -> None:  # type: ignore[no-untyped-def]
        if epoch.held_out is not None:
            print(
                f"epoch {epoch.number}: loss {epoch.loss:.3f}, training {epoch.accuracy:.1%}, "
                f"test {epoch.held_out:.1%}, {epoch.samples_per_second:,.0f} images/s",
                flush=True,
            )

    fit(net, x, y, epochs=epochs, optimiser=optimiser, beta=0.2, held_out=(x_test, y_test), callback=tell)


if __name__ == "__main__":
    main()
