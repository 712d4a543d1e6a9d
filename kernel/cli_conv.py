"""The networks of convolutions on the command line: eqkernel train cortex-conv, train conv-hopfield."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from . import data, models, report
from .cli_options import (
    BACKEND,
    CLOTHES,
    DATA,
    DIGITS,
    FOLDER,
    RESULTS,
    SEED,
    SEEDS,
    THREADS,
    VALIDATION,
    choice,
    draw_into,
    kept,
    read,
    writing_into,
)  # fmt: skip
from .conv_figures import MapStory, difference_maps, draw_maps
from .cortex import REWARDS, Adjustment
from .cpu.threads import set_threads
from .errors import EqkernelError
from .interop import to_host
from .network import Network
from .optimisers import cosine
from .orthogonal import OPTIMISERS
from .training import fit, residual_curves

SETS = {"mnist": (data.load_mnist, DIGITS), "fashion-mnist": (data.load_fashion_mnist, CLOTHES)}
WARMUP = 50  # steps over which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """Settings that did best on a validation split of MNIST (docs/cortex-conv.md)."""

    optimiser: str
    lr: float
    beta: float
    epochs: int
    weight_decay: float = 0.0
    batch: int = 64


CORTEX, RAW = Recipe("muon", 0.05, 0.2, 8, weight_decay=0.02), Recipe("momentum", 0.02, 0.2, 8)
HOPFIELD = Recipe("muon", 0.02, 0.2, 5)
RATES = {"muon": 0.05, "adago": 1.5, "adam": 2e-3, "momentum": 0.02, "sgd": 0.1}


def training(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a training, and the folder of its results."""
    for option in reversed((
        click.option("--dataset", type=choice(SETS), default="mnist", show_default=True),
        click.option("--from", "start", type=FOLDER, metavar="FILE", help="Go on from a weight file."),
        click.option("--optimiser", type=choice(OPTIMISERS), help="Instead of the recipe's."),
        click.option("--lr", type=float, help="Learning rate: it rises at first, and falls to 0 along a cosine."),
        click.option("--weight-decay", type=float, help="Decoupled."),
        click.option("--beta", type=float, help="Strength of the nudge."),
        click.option("--gamma", type=float, help="Gain of feedback."),
        click.option("--free-steps", type=int, help="Steps of the free phase."),
        click.option("--nudged-steps", type=int, help="Steps of the nudged phase."),
        click.option("--reward", type=choice(REWARDS), help="Scale each sample's update by its cost."),
        click.option("--adjust", is_flag=True, help="Let nudged states relax back towards the free ones."),
        click.option("--epochs", type=click.IntRange(1)),
        click.option("--batch", type=click.IntRange(1), help="Samples in a step."),
        BACKEND, THREADS, SEED, SEEDS, VALIDATION, DATA,
        click.option("--out", type=FOLDER, help="Folder for weights and picture.  [default: eqkernel-NAME]"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command("train cortex-conv")
@click.option("--neuron", type=choice(models.CORTEX_NEURONS), default="cortex", show_default=True)
@click.option("--model", type=choice(["conv", "dense"]), default="conv", show_default=True)
@click.option("--adaptation", type=float, default=0.0, show_default=True, help="Strength of the adaptation current.")
@training
def train_cortex(neuron: str, model: str, adaptation: float, **options: Any) -> None:
    """Train two small convolutions and a readout, 34,106 weights, by equilibrium propagation.

    --from takes a weight file, or "pretrained" for the weights that come with eqkernel. Saves weights.safetensors,
    and a picture of the trained filters, of how the network settles, and of what a nudge changes in each layer.
    """
    recipe = CORTEX if neuron == "cortex" else RAW
    if model == "dense" and adaptation:
        raise EqkernelError("--model dense has no adaptation current: leave out --adaptation")

    def make(**given: Any) -> Network:
        if model == "dense":
            return models.cortex_dense(neuron, **given)
        return models.cortex_conv(neuron, adaptation=adaptation, **given)

    _train("cortex-conv", make, recipe, **options)


@click.command("train conv-hopfield")
@click.option("--pool", type=choice(["max", "average"]), default="max", show_default=True)
@training
def train_hopfield(pool: str, **options: Any) -> None:
    """Train the convolutional Hopfield network of the literature: 32 and 64 maps by 5 x 5 kernels, each pooled by 2."""
    _train("conv-hopfield", lambda **given: models.conv_hopfield(pool, **given), HOPFIELD, **options)


COMMANDS = train_cortex, train_hopfield


def _train(
    name: str, make: Callable[..., Network], recipe: Recipe, dataset: str, start: Path | None, seed: int, seeds: int,
    threads: int | None, place: Path | None, out: Path | None, validation: float | None, backend: str, **options: Any,
) -> None:  # fmt: skip
    out = out or Path(f"eqkernel-{name}")
    if threads:
        set_threads(threads)
    load, names = SETS[dataset]
    x, y, x_held, y_held = load(place)
    judge = "test"
    if validation is not None:
        judge = "validation"
        x, y, x_held, y_held = data.validation_split(x, y, validation)
    recipe = _asked(recipe, start, options)
    numbers = range(seed, seed + seeds)
    nets = [_scheduled(_network(make, start, seed=n, backend=backend), options) for n in numbers]
    steps = recipe.epochs * -(-len(x) // recipe.batch)
    residuals = {"before": residual_curves(nets[0], x[:64], y[:64], recipe.beta)}
    with writing_into(out, *RESULTS), report.telling(numbers, judge) as histories:
        with report.progress_of(seeds, recipe.epochs, steps // recipe.epochs) as callback:
            for run, (n, net) in enumerate(zip(numbers, nets, strict=True)):
                with kept(net, run, out):
                    history = fit(
                        net, x, y, epochs=recipe.epochs, batch=recipe.batch, beta=recipe.beta, seed=n,
                        optimiser=OPTIMISERS[recipe.optimiser](
                            recipe.lr, weight_decay=recipe.weight_decay, schedule=cosine(steps, WARMUP)
                        ),
                        held_out=(x_held, y_held), callback=callback(run), reward=options["reward"],
                        adjustment=Adjustment() if options["adjust"] else None,
                    )  # fmt: skip
                    histories.append(history)
        residuals["after"] = residual_curves(nets[0], x[:64], y[:64], recipe.beta)

        shown = np.arange(min(6, len(x_held)))
        story = MapStory(
            title=f"{name} on {dataset}: {report.summary(histories, judge)}",
            histories=histories,
            held_out=judge,
            residuals=residuals,
            steps=(nets[0].schedule.free_steps, nets[0].schedule.nudged_steps),
            filters=_filters(nets[0]),
            images=x_held[shown].reshape(-1, 28, 28),
            labels=[names[k] for k in y_held[shown]],
            maps=difference_maps(nets[0], x_held[shown], y_held[shown], recipe.beta),
        )
        draw_into(out, draw_maps, story)
    click.echo(f"saved {out / 'weights.safetensors'} and {out / 'training.png'}")


def _asked(recipe: Recipe, start: Path | None, options: dict[str, Any]) -> Recipe:
    """The recipe with what was asked for instead; another optimiser has another rate, and a second training a lower."""
    kind = options["optimiser"] or recipe.optimiser
    rate = recipe.lr if kind == recipe.optimiser else RATES[kind]
    names = "lr", "weight_decay", "beta", "epochs", "batch"
    given = {name: options[name] for name in names if options[name] is not None}
    return replace(recipe, **{"optimiser": kind, "lr": rate * (0.2 if start else 1.0), **given})


def _network(make: Callable[..., Network], start: Path | None, seed: int, backend: str) -> Network:
    """A new network, or the one of the file, which must be of the kind that the command and its options make."""
    made = make(seed=seed, backend=backend, dtype="float64" if backend == "reference" else "float32")
    if start is None:
        return made
    net = read(start, backend)
    if (net.sizes[0], net.sizes[-1]) != (784, 10):
        found = f"{net.sizes[0]} pixels and {net.sizes[-1]} classes"
        raise EqkernelError(f"--from {start}: a network of {found}, where the data have 784 and 10")
    if (net.layers, net.connections, net.cost.name) != (made.layers, made.connections, made.cost.name):
        raise EqkernelError(
            f"--from {start}: its layers and connections are not those of this command and its options: give the "
            "command, --neuron, --model, --adaptation or --pool that it was trained with"
        )
    return net


def _scheduled(net: Network, options: dict[str, Any]) -> Network:
    changes = {k: options[k] for k in ("gamma", "free_steps", "nudged_steps") if options[k] is not None}
    net.schedule = net.schedule.but(**changes)
    return net


def _filters(net: Network) -> np.ndarray:
    """The first layer's weights as pictures (k, height, width), at most 48."""
    weight = to_host(net.parameters[0])[:48]
    side = weight.shape[1] if weight.ndim == 4 else 28
    return weight.reshape(-1, side, side)
