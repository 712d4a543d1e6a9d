"""The networks of convolutions by name, and their training on the command line."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from oracle import cosine
from PIL import Image

import eqkernel as eq
from eqkernel import cli, cli_conv, models
from eqkernel.conv_figures import difference_maps
from eqkernel.data import load_mnist


def count(net):
    return sum(parameter.size for parameter in net.parameters)


def test_their_sizes():
    assert count(models.cortex_conv()) == 416 + 2_320 + 31_370 == 34_106
    assert count(models.cortex_conv("raw")) == 34_106
    assert count(models.cortex_dense()) == 34_195
    assert count(models.conv_hopfield()) == 832 + 51_264 + 10_250


def test_neurons_and_schedules():
    cortex, raw = models.cortex_conv(adaptation=0.3), models.cortex_conv("raw")
    assert [layer.neuron for layer in cortex.layers[1:]] == ["sigmoid", "sigmoid", "softmax"]
    assert [layer.adaptation for layer in cortex.layers[1:]] == [0.3, 0.3, 0.0]
    assert [layer.neuron for layer in raw.layers[1:]] == ["fhn", "fhn", "softmax"]
    assert raw.gamma == 1.0 and cortex.gamma == models.CORTEX.gamma
    assert models.cortex_conv(schedule="few-step").schedule is eq.SCHEDULES["few-step"]
    assert models.cortex_dense(schedule="converged").schedule is eq.SCHEDULES["converged"]
    assert models.conv_hopfield().gamma == 0.01
    assert {c.pool for c in models.conv_hopfield("average").connections if c.stem == "conv"} == {"average"}


@pytest.mark.parametrize(
    ("make", "gains", "bias"),
    [
        (models.cortex_conv, (6.5, 4.0, 1.0), -1.0),
        (models.cortex_dense, (6.5, 1.0), -1.0),
        (models.conv_hopfield, (2.0, 1.0, 1.0), 0.0),
    ],
)
def test_the_first_weights_have_their_gains(make, gains, bias):
    net = make(seed=3)
    for parameter, gain in zip(net.parameters[::2], gains, strict=True):
        assert parameter.std() * np.sqrt(parameter[0].size) == pytest.approx(gain, rel=0.1)
    *hidden, last = net.parameters[1::2]
    assert all((b == bias).all() for b in hidden) and not last.any()
    assert (make(seed=3).buffer == net.buffer).all()
    assert (make(seed=4).buffer != net.buffer).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neuron": "cortical"}, "unknown neuron 'cortical': choose one of 'cortex'"),
        ({"pretrained": True, "neuron": "raw"}, "choose only a backend"),
        ({"pretrained": True, "seed": 1}, "choose only a backend"),
        ({"pretrained": True, "adaptation": 0.3}, "choose only a backend"),
        ({"pretrained": True, "schedule": "few-step"}, "choose only a backend"),
    ],
)
def test_what_there_is_not_is_refused(options, message):
    with pytest.raises(eq.EqkernelError, match=message):
        models.cortex_conv(**options)


def test_a_coupling_of_convolutions_is_refused():
    with pytest.raises(eq.EqkernelError, match="the coupling of convolutions"):
        models.coupling(models.cortex_conv())


def test_the_few_steps_of_the_cortex_schedule_are_enough():
    """At first weights, against the same network settled: the cosine is above .999, in every block above .99."""
    net = models.cortex_conv(dtype="float64", backend="reference")
    rng = np.random.default_rng(0)
    x, y = (rng.random((8, 28, 28)) * (rng.random((8, 28, 28)) < 0.2)).reshape(8, 784), np.arange(8)
    settled = net.schedule.but(free_steps=200, nudged_steps=200, tolerance=1e-9, early_stop=True)
    exact, found = eq.ep_gradient(net, x, y, 0.01, schedule=settled), eq.ep_gradient(net, x, y, 0.2)
    assert cosine(found, exact) > 0.999
    assert min(map(cosine, found, exact)) > 0.99


# -- command line ----------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], prog_name="eqkernel")


@pytest.fixture
def bars(monkeypatch):
    """A data set of 28 x 28 bars, learned in an epoch, in the place of MNIST."""

    def load(place):
        rng = np.random.default_rng(0)
        x, y = rng.uniform(0, 0.2, (160, 28, 28)).astype(np.float32), np.arange(160) % 10
        for image, label in zip(x, y, strict=True):
            image[2 * label + 4 : 2 * label + 6] += 0.8
        x = x.reshape(160, 784)
        return x[:120], y[:120], x[120:], y[120:]

    monkeypatch.setitem(cli_conv.SETS, "mnist", (load, cli_conv.DIGITS))


def test_train_saves_weights_and_a_picture_and_goes_on_from_them(bars, tmp_path):
    first = run("train", "cortex-conv", "--epochs", 4, "--batch", 20, "--out", tmp_path)
    assert first.exit_code == 0, first.output
    assert "% test accuracy" in first.stdout
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    net = eq.Network.load(tmp_path / "weights.safetensors")
    assert count(net) == 34_106 and abs(net.buffer - models.cortex_conv().buffer).max() > 0.01
    *options, out = "--from", tmp_path / "weights.safetensors", tmp_path / "more"
    again = run("train", "cortex-conv", "--epochs", 1, "--batch", 20, *options, "--out", out)
    assert again.exit_code == 0, again.output
    moved = eq.Network.load(out / "weights.safetensors").buffer
    assert 0 < abs(moved - net.buffer).max() < abs(moved - models.cortex_conv().buffer).max()


@pytest.mark.parametrize(
    "options",
    [
        "cortex-conv --neuron raw --nudged-steps 2 --free-steps 3 --gamma 0.1",
        "cortex-conv --model dense --reward surprise --adjust --validation 0.2",
        "cortex-conv --adaptation 0.3 --optimiser adago --seeds 2",
        "conv-hopfield --pool average",
    ],
)
def test_variants_train(bars, tmp_path, options):
    result = run("train", *options.split(), "--epochs", 1, "--batch", 40, "--out", tmp_path)
    assert result.exit_code == 0, result.output


def asked(monkeypatch, *args):
    """(network, images, arguments) of the first call of `fit` in that training."""
    calls = []

    def fit(net, x, y, **arguments):
        calls.append((net, x, arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_conv, "fit", fit)
    monkeypatch.setattr(cli_conv, "residual_curves", lambda *_: ([], []))
    assert run("train", *args).exit_code == 130
    return calls[0]


def test_options_reach_the_training(bars, tmp_path, monkeypatch):
    options = "--beta 0.3 --weight-decay 0.1 --reward surprise --adjust --validation 0.25 --seed 3 --optimiser adago"
    plan = "--gamma 0.5 --free-steps 5 --nudged-steps 4 --epochs 3 --batch 45"
    net, x, given = asked(monkeypatch, "cortex-conv", *options.split(), *plan.split(), "--out", tmp_path)
    optimiser = given["optimiser"]
    assert (type(optimiser), optimiser.lr, optimiser.weight_decay) == (eq.AdaGO, 1.5, 0.1)
    assert optimiser.schedule(0) == pytest.approx(1 / 50) and optimiser.schedule(3 * 2) == pytest.approx(0)
    names = "beta", "reward", "adjustment", "seed", "epochs", "batch"
    assert [given[name] for name in names] == [0.3, "surprise", eq.Adjustment(), 3, 3, 45]
    assert len(x) == 90 and len(given["held_out"][0]) == 30 and net.seed == 3
    assert (net.schedule.gamma, net.schedule.free_steps, net.schedule.nudged_steps) == (0.5, 5, 4)


@pytest.mark.parametrize(
    ("words", "kind", "lr", "neuron", "pool"),
    [
        ("cortex-conv", eq.Muon, 0.05, "sigmoid", {"none"}),
        ("cortex-conv --from pretrained", eq.Muon, 0.01, "sigmoid", {"none"}),  # it goes on more slowly
        ("cortex-conv --neuron raw", eq.Momentum, 0.02, "fhn", {"none"}),
        ("cortex-conv --model dense --neuron raw", eq.Momentum, 0.02, "fhn", set()),
        ("conv-hopfield --pool average", eq.Muon, 0.02, "hard-sigmoid", {"average"}),
    ],
)
def test_each_network_is_made_as_asked_and_trained_by_its_recipe(
    bars, tmp_path, monkeypatch, words, kind, lr, neuron, pool
):
    net, _, given = asked(monkeypatch, *words.split(), "--out", tmp_path)
    assert type(given["optimiser"]) is kind and given["optimiser"].lr == pytest.approx(lr)
    assert net.layers[1].neuron == neuron and {c.pool for c in net.connections if c.stem == "conv"} == pool


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train cortex-conv --neuron cortical", "'cortical' is not one of 'cortex', 'raw'"),
        ("train cortex-conv --gamma 2", r"gamma must lie in \(0, 1\]"),
        ("train cortex-conv --from nowhere.safetensors", "no weight file at nowhere.safetensors"),
        ("train cortex-conv --lr 0", "lr must be a positive number"),
        ("train conv-hopfield --pool none", "'none' is not one of 'max', 'average'"),
    ],
)
def test_errors_are_one_line(bars, tmp_path, command, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*command.split())
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("eqkernel: ")
    assert re.search(message, line), line
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_another_shape_is_no_start(bars, tmp_path):
    eq.Network.dense(5, 4, 3).save(tmp_path / "small.safetensors")
    result = run("train", "cortex-conv", "--from", tmp_path / "small.safetensors", "--out", tmp_path)
    assert result.exit_code == 2 and "a network of 5 pixels and 3 classes" in result.stderr


def test_difference_maps_are_the_norms_over_channels():
    net = models.cortex_conv(dtype="float64", backend="reference")
    x, y = np.random.default_rng(0).random((3, 784)), np.array([1, 2, 3])
    maps = difference_maps(net, x, y, 0.2)
    nudged = eq.nudged_phase(net, eq.free_phase(net, x), y, 0.2)
    assert [m.shape for m in maps.values()] == [(3, 14, 14), (3, 14, 14), (3, 1, 10)]
    channels = nudged.difference[1].reshape(3, 14, 14, 16)
    np.testing.assert_allclose(maps["layer 1"] ** 2, (channels**2).sum(axis=-1))
    np.testing.assert_array_equal(maps["layer 3"][:, 0], nudged.difference[3])


# -- shipped weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist():
    """The test images, where MNIST lies in $EQKERNEL_DATA."""
    folder = os.environ.get("EQKERNEL_DATA")
    if not folder:
        pytest.skip("MNIST is looked for in $EQKERNEL_DATA, which is not set")
    try:
        return load_mnist(folder)[2:]
    except eq.EqkernelError as error:
        pytest.skip(f"no MNIST: {error}")


def test_the_shipped_weights_are_small_and_whole():
    net = models.cortex_conv(pretrained=True)
    assert count(net) == 34_106 and net.schedule == models.CORTEX
    assert models.cortex_conv(pretrained=True, backend="cpu").backend == "cpu"
    folder = Path(eq.__file__).parent / "weights"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 200_000


def test_the_shipped_weights_read_mnist(mnist):
    """All 10,000 test images, none of which they learned from."""
    x, y = mnist
    accuracy = (eq.predict(models.cortex_conv(pretrained=True), x) == y).mean()
    assert len(y) == 10_000 and accuracy >= 0.989, accuracy


def test_predict_and_train_take_the_shipped_weights(bars, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.zeros((28, 28))
    image[4:24, 13:15] = 1
    np.save("one.npy", image)
    result = run("predict", "pretrained", "--image", "one.npy")
    assert result.exit_code == 0 and result.stdout.startswith("one.npy: 1 ("), result.output
    result = run("train", "cortex-conv", "--from", "pretrained", "--epochs", 1, "--batch", 40, "--out", "more")
    assert result.exit_code == 0, result.output
