"""The command line: eqkernel train, predict, doctor, and those of `cli_conv` and `cli_fields`.

An error is one line and exit code 2, or 1 where output cannot be written; an interrupt has 130.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from . import __version__, cli_conv, cli_fields, data, models, report
from .cli_options import (
    BACKEND,
    CLOTHES,
    DATA,
    DIGITS,
    FOLDER,
    LARGEST,
    RESULTS,
    SEED,
    SEEDS,
    THREADS,
    VALIDATION,
    Interrupted,
    choice,
    draw_into,
    kept,
    read,
    writing_into,
)  # fmt: skip
from .costs import COSTS
from .cpu.threads import set_threads
from .datafiles import read_image
from .doctor import examine
from .errors import EqkernelError
from .figures import draw
from .interop import to_host
from .learning import predict as predicted
from .network import Network
from .neurons import NEURONS
from .optimisers import Optimiser, cosine
from .orthogonal import OPTIMISERS
from .phases import VARIANTS
from .schedules import FORMS, ORDERS, SCHEDULES, find_schedule
from .training import fit, residual_curves


@dataclass(frozen=True)
class Task:
    """A data set of square images to train on, and the settings that did best on its validation split."""

    load: Callable[[Path | None], data.Split]
    labels: tuple[str, ...]
    hidden: str
    epochs: int
    batch: int
    lr: float  # of Adam
    weight_decay: float  # of Adam


def _embedded(place: Path | None) -> data.Split:
    if place is not None:
        raise EqkernelError("digits come with eqkernel: leave out --data")
    return data.load_digits()


TASKS = {
    "digits": Task(_embedded, DIGITS, "256,128", 40, 16, 2e-3, 0.3),
    "mnist": Task(data.load_mnist, DIGITS, "512", 15, 64, 2e-3, 0.1),
    "fashion-mnist": Task(data.load_fashion_mnist, CLOTHES, "512", 15, 64, 2e-3, 0.1),
}
MODELS: dict[str, tuple[Callable[..., Network], str]] = {  # each with the schedule it does best with
    "dense": (Network.dense, "few-step"),
    "recurrent": (Network.recurrent, "converged"),
    "fhn": (models.fhn, "single-sweep"),
}
RATES = {"momentum": 0.1, "sgd": 0.5, "muon": 0.02, "adago": 0.5}


class Commands(click.Group):
    """A group whose commands may have two words; a warning or error is a line."""

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        words = " ".join(args[:2])
        if words in self.commands:
            return words, self.commands[words], args[2:]
        return super().resolve_command(context, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        code = 2
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # an old encoding has no dot or sign in the tables
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):  # what overflows is refused where it matters
                warnings.showwarning = _tell
                sys.exit(super().main(*args, **kwargs | {"standalone_mode": False}))
        except click.ClickException as error:
            message = error.format_message()
        except EqkernelError as error:
            message = str(error)
        except MemoryError as error:
            message = f"not enough memory: {error}; choose a smaller --hidden, --size or --batch, or fewer --threads"
        except OverflowError as error:
            message = f"a number among the options is too large: {error}"
        except OSError as error:  # of stdout: files that cannot be read or written raise an EqkernelError
            code, message = 1, f"cannot write {error.filename or 'to standard output'}: {error.strerror or error}"
            _forget_output()
        except Interrupted as error:
            code, message = 130, str(error)
        except (click.Abort, KeyboardInterrupt):
            code, message = 130, "interrupted"
        click.echo(f"eqkernel: {' '.join(message.split())}", err=True)
        sys.exit(code)


def _forget_output() -> None:
    """What stdout did not take is still in its buffer, and Python would try once more at exit, and complain."""
    with suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _tell(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"eqkernel: note: {' '.join(str(message).split())}", err=True)


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__, message="eqkernel %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Neural networks trained by equilibrium propagation."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (*cli_conv.COMMANDS, *cli_fields.COMMANDS):
    main.add_command(_command)


@main.command()
@click.argument("dataset", type=choice(TASKS))
@click.option("--model", type=choice(("dense", "fhn")), default="dense", help="fhn: of FitzHugh-Nagumo neurons.")
@click.option("--hidden", metavar="N[,N...]", multiple=True, help="Neurons of the hidden layers, in order.")
@click.option("--recurrent", is_flag=True, help="Connect every hidden layer to itself, symmetrically.")
@click.option("--neuron", type=choice(n for n in NEURONS if n != "softmax"), help="Of the hidden layers.")
@click.option("--cost", type=choice(COSTS), default="cross-entropy", show_default=True)
@click.option("--beta", type=float, default=0.02, show_default=True, help="Strength of the nudge.")
@click.option("--variant", type=choice(VARIANTS), default="centered", show_default=True)
@click.option("--schedule", type=choice(SCHEDULES), help="few-step; converged if recurrent, single-sweep if fhn.")
@click.option("--gamma", type=float, help="Gain of feedback, instead of the schedule's.")
@click.option("--free-steps", type=int, help="Steps of the free phase, instead of the schedule's.")
@click.option("--nudged-steps", type=int, help="Steps of the nudged phase, instead of the schedule's.")
@click.option("--order", type=choice(ORDERS), help="Which layers relax when, instead of the schedule's.")
@click.option("--form", type=choice(FORMS), help="What the nudged phase carries, instead of the schedule's.")
@click.option("--optimiser", type=choice(OPTIMISERS), default="adam", show_default=True)
@click.option("--lr", type=float, help="Learning rate at first; it falls to 0 along a cosine.")
@click.option("--weight-decay", type=float, help="Decoupled; Adam has one by default.")
@click.option("--epochs", type=click.IntRange(1))
@click.option("--batch", type=click.IntRange(1), help="Samples in a step.")
@BACKEND
@click.option("--dtype", type=choice(["float32", "float64"]), help="float32, or what the backend has.")
@THREADS
@SEED
@SEEDS
@VALIDATION
@DATA
@click.option("--out", type=FOLDER, help="Folder for weights and picture.  [default: eqkernel-DATASET]")
def train(dataset: str, place: Path | None, out: Path | None, **options: Any) -> None:
    """Train on DATASET; save the weights, and a picture of how the network learned.

    The networks of convolutions have commands of their own: "train cortex-conv" and "train conv-hopfield".
    What --hidden, --epochs, --batch, and Adam's --lr and --weight-decay are by default was chosen for each
    DATASET on a validation split.
    """
    task = TASKS[dataset]
    options["epochs"] = options["epochs"] or task.epochs
    options["batch"] = options["batch"] or task.batch
    out = out or Path(f"eqkernel-{dataset}")
    if options["threads"]:
        set_threads(options["threads"])
    x, y, x_held, y_held = task.load(place)
    judge = "test"
    if options["validation"] is not None:
        judge = "validation"
        x, y, x_held, y_held = data.validation_split(x, y, options["validation"])

    seeds = range(options["seed"], options["seed"] + options["seeds"])
    nets = [_network(task, x.shape[1], seed, options) for seed in seeds]
    beta, batches = options["beta"], -(-len(x) // options["batch"])
    start = to_host(nets[0].parameters[0]).copy()
    residuals = {"before": residual_curves(nets[0], x[:64], y[:64], beta)}
    with writing_into(out, *RESULTS), report.telling(seeds, judge) as histories:
        with report.progress_of(len(nets), options["epochs"], batches) as callback:
            for run, net in enumerate(nets):
                with kept(net, run, out):
                    history = fit(
                        net, x, y, epochs=options["epochs"], batch=options["batch"], beta=beta,
                        optimiser=_optimiser(task, options, options["epochs"] * batches),
                        variant=options["variant"], seed=net.seed, held_out=(x_held, y_held), callback=callback(run),
                    )  # fmt: skip
                    histories.append(history)
        residuals["after"] = residual_curves(nets[0], x[:64], y[:64], beta)

        sizes, summary = "-".join(map(str, nets[0].sizes)), report.summary(histories, judge)
        title = f"{dataset}, {sizes}, {nets[0].schedule.name} equilibrium propagation: {summary}"
        learned = (to_host(nets[0].parameters[0]) - start) * x.std(axis=0)
        story = report.story(title, nets[0], learned, histories, judge, x_held, y_held, task.labels, residuals)
        draw_into(out, draw, story)
    click.echo(f"saved {out / 'weights.safetensors'} and {out / 'training.png'}")


@main.command()
@click.argument("weights", type=FOLDER)
@click.argument("dataset", type=choice(TASKS), required=False)
@click.option("--image", "images", type=FOLDER, multiple=True, help="A .npy or a picture, light on dark.")
@click.option("--invert", is_flag=True, help="The pictures are dark on light.")
@DATA
@BACKEND
def predict(
    weights: Path,
    dataset: str | None,
    images: tuple[Path, ...],
    invert: bool,
    place: Path | None,
    backend: str,
) -> None:
    """Read the network in WEIGHTS, and test it on DATASET or say what it sees in each --image.

    WEIGHTS is a file, or "pretrained" for the cortex-conv that comes with eqkernel.
    """
    if not dataset and not images:
        raise EqkernelError(f"nothing to predict: add a data set ({', '.join(TASKS)}) or --image FILE")
    if invert and not images:
        raise EqkernelError("--invert is for pictures: add --image FILE, or leave it out")
    if place and not dataset:
        raise EqkernelError("--data is for data sets: name one, or leave it out")
    console, net = Console(), read(weights, backend)
    names = TASKS[dataset].labels if dataset else tuple(map(str, range(net.sizes[-1])))
    if dataset:
        if net.sizes[-1] != len(names):
            raise EqkernelError(f"{weights} has {net.sizes[-1]} outputs, and {dataset} {len(names)} classes")
        _, _, x, y = TASKS[dataset].load(place)
        if net.sizes[0] != x.shape[1]:
            raise EqkernelError(f"{weights} takes {net.sizes[0]} pixels, and {dataset} has images of {x.shape[1]}")
        console.print(report.confusion(predicted(net, x), y, names))
    for path in images:
        output = predicted(net, read_image(path, net.sizes[0], invert)[None], output=True)[0]
        ranking = (f"{names[k]} ({output[k]:.3f})" for k in output.argsort()[:-4:-1])
        click.echo(f"{path}: {', then '.join(ranking)}")


@main.command()
def doctor() -> None:
    """Say what eqkernel runs on, which backends it can use, and whether they agree."""
    if not examine(Console()):
        sys.exit(1)


def _network(task: Task, features: int, seed: int, options: dict[str, Any]) -> Network:
    model = "recurrent" if options["recurrent"] else options["model"]
    if options["model"] == "fhn" and (options["recurrent"] or options["neuron"]):
        raise EqkernelError("--model fhn has its own neurons and no lateral weights: leave out --neuron, --recurrent")
    kind, default_schedule = MODELS[model]
    schedule = find_schedule(options["schedule"] or default_schedule)
    changes = ("gamma", "free_steps", "nudged_steps", "order", "form")
    given: dict[str, Any] = {"neuron": options["neuron"]} if options["neuron"] else {}
    return kind(
        features,
        *_widths(options["hidden"] or (task.hidden,)),
        len(task.labels),
        cost=options["cost"],
        schedule=schedule.but(**{name: options[name] for name in changes if options[name] is not None}),
        dtype=options["dtype"] or ("float64" if options["backend"] == "reference" else "float32"),
        backend=options["backend"],
        seed=seed,
        **given,
    )


def _widths(hidden: tuple[str, ...]) -> list[int]:
    """Whole numbers out of "512,256" or several of them."""
    given = ",".join(hidden)
    try:
        widths = [int(part) for part in given.split(",")]
    except ValueError:
        raise EqkernelError(f"--hidden {given!r}: give whole numbers, like 512 or 512,256") from None
    if max(widths) > LARGEST:
        raise EqkernelError(f"--hidden {given!r}: a layer may have {LARGEST:,} neurons at most")
    return widths


def _optimiser(task: Task, options: dict[str, Any], steps: int) -> Optimiser:
    name, lr, decay = options["optimiser"], options["lr"], options["weight_decay"]
    default = (task.lr, task.weight_decay) if name == "adam" else (RATES[name], 0.0)
    return OPTIMISERS[name](
        default[0] if lr is None else lr,
        weight_decay=default[1] if decay is None else decay,
        schedule=cosine(steps),
    )
