"""The command line does what its options say, and never leaves half a file."""

import errno
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from compiled import FASTEST
from matplotlib.figure import Figure
from PIL import Image

from eqkernel import (
    SGD,
    AdaGO,
    Adam,
    Momentum,
    Muon,
    Network,
    __version__,
    cli,
    cli_conv,
    cli_fields,
    data,
    doctor,
    predict,
)
from eqkernel.backends import unavailable
from eqkernel.data import load_digits

# Two epochs of a small network in the backend that compiles nothing.
SMALL = ["--hidden", "24", "--epochs", "2", "--lr", "0.01", "--backend", "reference"]


def run(*args):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], prog_name="eqkernel")


def error_line(result):
    """The one line that a failed command ends with; above it there may be a progress bar."""
    assert result.exit_code == 2, result.output
    *bars, line = result.stderr.strip().splitlines()
    assert line.startswith("eqkernel: ") and all("epoch" in bar for bar in bars)
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the results of `train digits`, and what it printed."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = run("train", "digits", *SMALL, "--seeds", "2", "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_train_saves_weights_that_learned_and_a_picture(trained):
    out, printed = trained
    assert sorted(path.name for path in out.iterdir()) == ["training.png", "weights.safetensors"]
    _, _, x_test, y_test = load_digits()
    net = Network.load(out / "weights.safetensors")
    accuracy = 100 * (predict(net, x_test) == y_test).mean()
    assert accuracy > 85
    assert net.seed == 0
    rows = [line.split() for line in printed.splitlines() if "%" in line and "/" in line]
    first, second = (float(row[4]) for row in rows)
    assert [row[0] for row in rows] == ["0", "1"] and f"{accuracy:.2f}" == f"{first:.2f}"
    mean, spread = re.search(r"([\d.]+) ± ([\d.]+) % test accuracy, 2 seeds", printed).groups()
    assert float(mean) == pytest.approx((first + second) / 2, abs=0.011)
    assert float(spread) == pytest.approx(abs(first - second) / 2**0.5, abs=0.011)
    with Image.open(out / "training.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_the_picture_tells_what_was_learned_and_how_the_trained_network_settles(tmp_path, monkeypatch):
    stories = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "draw", lambda story, path: stories.append(story))
    result = run("train", "digits", *SMALL, "--epochs", "1")
    assert result.exit_code == 0, result.output
    (story,), net = stories, Network.load(tmp_path / "eqkernel-digits" / "weights.safetensors", "reference")
    start = Network.dense(64, 24, 10, backend="reference", dtype="float64").parameters[0]
    learned = (net.parameters[0] - start) * load_digits()[0].std(axis=0)
    order = np.argsort(-np.linalg.norm(learned, axis=1), kind="stable")
    np.testing.assert_allclose(story.features.reshape(24, 64), learned[order], atol=1e-12)
    assert abs(story.features).max() > 0 and story.residuals["before"] != story.residuals["after"]


def test_the_picture_needs_no_display(trained, tmp_path):
    code = "from eqkernel.cli import main; main()"
    args = ["train", "digits", *SMALL, "--epochs", "1", "--out", str(tmp_path)]
    environment = {"PATH": "", "MPLBACKEND": "TkAgg", "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, "-c", code, *args], env=environment, check=True, capture_output=True)
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_options_reach_the_network(tmp_path):
    sizes = "--hidden 12,8 --hidden 6 --neuron tanh --cost squared-error --dtype float64 --seed 5 --epochs 1"
    plan = "--schedule converged --gamma 0.5 --free-steps 7 --nudged-steps 3 --order synchronous"
    form = ("--form", "plus-minus")
    result = run("train", "digits", *sizes.split(), *plan.split(), *form, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    net = Network.load(tmp_path / "weights.safetensors")
    schedule = net.schedule
    assert net.sizes == [64, 12, 8, 6, 10] and net.layers[1].neuron == "tanh"
    assert (net.cost.name, net.dtype, net.seed) == ("squared-error", np.float64, 5)
    assert (schedule.gamma, schedule.free_steps, schedule.nudged_steps) == (0.5, 7, 3)
    assert (schedule.order, schedule.form) == ("synchronous", "plus-minus")


def test_a_network_is_float32_on_the_fastest_backend_unless_asked(tmp_path):
    result = run("train", "digits", "--hidden", "16", "--epochs", "1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    net = Network.load(tmp_path / "weights.safetensors")
    assert (net.dtype, net.backend, net.schedule.name) == (np.float32, FASTEST, "few-step")


def test_recurrent_networks_get_lateral_connections(tmp_path):
    result = run("train", "digits", *SMALL, "--recurrent", "--epochs", "1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    net = Network.load(tmp_path / "weights.safetensors")
    assert [connection.stem for connection in net.connections].count("lateral") == 1
    assert net.schedule.name == "converged"


def test_fhn_networks_can_be_trained(tmp_path):
    result = run("train", "digits", "--model", "fhn", "--hidden", "24,16", "--epochs", "8", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    net = Network.load(tmp_path / "weights.safetensors")
    assert [layer.neuron for layer in net.layers[1:]] == ["fhn", "fhn", "softmax"]
    assert net.schedule.name == "single-sweep"
    *_, x, y = load_digits()
    assert (predict(net, x) == y).mean() > 0.9
    assert "leave out --neuron" in error_line(run("train", "digits", "--model", "fhn", "--neuron", "tanh"))


@pytest.mark.parametrize(
    ("options", "kind", "lr", "decay"),
    [
        ("", Adam, 2e-3, 0.3),
        ("--lr 0.02 --weight-decay 0", Adam, 0.02, 0),
        ("--optimiser momentum", Momentum, 0.1, 0),
        ("--optimiser momentum --weight-decay 0.01", Momentum, 0.1, 0.01),
        ("--optimiser sgd", SGD, 0.5, 0),
        ("--optimiser muon", Muon, 0.02, 0),
        ("--optimiser adago", AdaGO, 0.5, 0),
    ],
)
def test_options_reach_the_training(tmp_path, monkeypatch, options, kind, lr, decay):
    calls = []

    def fit(net, x, y, **arguments):
        calls.append((x, y, arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "fit", fit)
    common = "--beta 0.3 --variant positive --epochs 3 --batch 50 --validation 0.25 --seed 3 --backend reference"
    assert run("train", "digits", *common.split(), *options.split(), "--out", tmp_path).exit_code == 130
    ((x, y, arguments),) = calls
    optimiser, (x_held, y_held) = arguments["optimiser"], arguments["held_out"]
    assert type(optimiser) is kind and (optimiser.lr, optimiser.weight_decay) == (lr, decay)
    assert optimiser.schedule(3 * 22) == pytest.approx(0) and optimiser.schedule(33) == pytest.approx(0.5)
    names = "beta", "variant", "epochs", "batch", "seed"
    assert [arguments[name] for name in names] == [0.3, "positive", 3, 50, 3]
    assert len(x) == len(y) == 1082 and len(x_held) == len(y_held) == 360  # 1,442: no test image among them
    test_images = {row.tobytes() for row in load_digits()[2]}
    assert not test_images & {row.tobytes() for row in (*x, *x_held)}


def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run("train", "digits", *SMALL, "--seed", seed, "--out", tmp_path / name).exit_code == 0
    a, b, c = (Network.load(tmp_path / name / "weights.safetensors").buffer for name in "abc")
    assert (a == b).all() and (a != c).any()


def test_unsettled_batches_are_told_in_the_table(tmp_path):
    steps = "--schedule converged --hidden 24,16 --free-steps 2 --epochs 1 --batch 721"
    result = run("train", "digits", *SMALL, *steps.split(), "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "2/2" in result.stdout and "the steps ran out" in " ".join(result.stdout.split())
    assert "UnsettledWarning" not in result.output


def test_predict_repeats_the_test_accuracy(trained):
    out, _ = trained
    result = run("predict", out / "weights.safetensors", "digits")
    assert result.exit_code == 0, result.output
    _, _, x_test, y_test = load_digits()
    right = (predict(Network.load(out / "weights.safetensors"), x_test) == y_test).sum()
    assert f"{100 * right / 355:.2f} % of 355" in result.stdout
    rows = [line.replace("│", " ").split()[1:] for line in result.stdout.splitlines() if line.startswith("│")]
    counts = np.array([[0 if cell == "·" else int(cell) for cell in row] for row in rows])
    assert counts.shape == (10, 10) and counts.sum() == 355 and counts.trace() == right


@pytest.mark.parametrize("kind", ["npy", "npy of bytes", "png", "inverted png"])
def test_predict_reads_an_image(trained, tmp_path, kind):
    weights = trained[0] / "weights.safetensors"
    _, _, x_test, _ = load_digits()
    expected = predict(Network.load(weights), x_test[:1])[0]
    pixels = np.rint(255 * x_test[0].reshape(8, 8)).astype(np.uint8)
    path, extra = tmp_path / f"digit.{kind.split()[-1] if 'png' in kind else 'npy'}", []
    if kind == "npy":
        np.save(path, x_test[0])
    elif kind == "npy of bytes":
        np.save(path, pixels)
    elif kind == "png":
        Image.fromarray(pixels).save(path)
    else:
        Image.fromarray(255 - pixels).resize((80, 80), Image.Resampling.NEAREST).save(path)
        extra = ["--invert"]
    result = run("predict", weights, "--image", path, *extra)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{path}: {expected} (")


def copy_of(trained, tmp_path):
    """A folder with an earlier run's results, and what they are."""
    for path in trained[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_that_does_not_fit_leaves_the_old_ones(trained, tmp_path):
    before = copy_of(trained, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        result = run("train", "digits", *SMALL, "--seed", "1", "--out", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in error_line(result) and "weights.safetensors" in error_line(result)
    assert contents(tmp_path) == before


def test_a_full_disk_during_the_picture_leaves_the_old_one(trained, tmp_path, monkeypatch):
    before = copy_of(trained, tmp_path)

    def savefig(figure, path, **_):
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", savefig)
    line = error_line(run("train", "digits", *SMALL, "--seed", "1", "--out", tmp_path))
    assert "training.png: No space left on device" in line
    assert line.endswith(f"the weights are in {tmp_path / 'weights.safetensors'}")
    after = contents(tmp_path)
    assert after.keys() == before.keys() and after["training.png"] == before["training.png"]
    assert after["weights.safetensors"] != before["weights.safetensors"]


def test_an_interrupted_training_leaves_the_old_files(trained, tmp_path, monkeypatch):
    before = copy_of(trained, tmp_path)

    def fit(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "fit", fit)
    result = run("train", "digits", *SMALL, "--out", tmp_path)
    assert result.exit_code == 130 and result.stderr.strip().endswith("interrupted")
    assert contents(tmp_path) == before


def interrupt(monkeypatch, module, run, epoch):
    """Ctrl-C comes in that run, 0 the first, as soon as that epoch begins."""
    fit, nets = module.fit, []

    def interrupted(net, x, y, *, callback, **options):
        nets.append(net)

        def show(now):
            callback(now)
            if (len(nets), now.number) == (run + 1, epoch):
                raise KeyboardInterrupt

        return fit(net, x, y, callback=show, **options)

    monkeypatch.setattr(module, "fit", interrupted)
    return nets


def test_an_interrupt_saves_the_weights_of_the_moment_beside_the_old_files(trained, tmp_path, monkeypatch):
    before = copy_of(trained, tmp_path)
    nets = interrupt(monkeypatch, cli, run=0, epoch=2)
    result = run("train", "digits", *SMALL, "--seed", "1", "--out", tmp_path)
    saved = tmp_path / "interrupted.safetensors"
    assert result.exit_code == 130 and not result.stdout
    assert f"interrupted; the weights as they were at this moment are in {saved}" in result.stderr.splitlines()[-1]
    assert (Network.load(saved).buffer == nets[0].buffer).all() and Network.load(saved).seed == 1
    saved.unlink()
    assert contents(tmp_path) == before


def test_an_interrupt_of_a_later_seed_keeps_the_first_and_its_row(tmp_path, monkeypatch):
    nets = interrupt(monkeypatch, cli, run=1, epoch=1)
    result = run("train", "digits", *SMALL, "--seeds", "3", "--out", tmp_path)
    assert result.exit_code == 130 and "the first seed's weights, fully trained" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert (Network.load(tmp_path / "weights.safetensors").buffer == nets[0].buffer).all()
    assert [line.split()[0] for line in result.stdout.splitlines() if "/" in line and "%" in line] == ["0"]


def test_an_interrupt_saves_networks_of_convolutions_too(tmp_path, monkeypatch):
    blank = np.zeros((40, 784), np.float32), np.arange(40) % 10
    monkeypatch.setitem(cli_conv.SETS, "mnist", (lambda place: blank * 2, cli_conv.DIGITS))
    nets = interrupt(monkeypatch, cli_conv, run=0, epoch=2)
    result = run("train", "cortex-conv", "--batch", "20", "--out", tmp_path)
    assert result.exit_code == 130, result.output
    assert (Network.load(tmp_path / "interrupted.safetensors").buffer == nets[0].buffer).all()


def command(*args, **streams):
    code = "from eqkernel.cli import main; main()"
    words = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **streams)


def test_a_training_whose_output_nobody_reads_is_saved(tmp_path):
    with command("train", "digits", *SMALL, "--epochs", "1", "--out", tmp_path, stdout=subprocess.PIPE) as child:
        child.stdout.close()
        told = child.stderr.read()
    assert child.returncode == 1 and all("epoch" in line for line in told.splitlines())
    assert contents(tmp_path).keys() == {"training.png", "weights.safetensors"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line_and_the_training_is_saved(tmp_path):
    options = *SMALL, "--epochs", "1", "--out", tmp_path
    with open("/dev/full", "w") as full, command("train", "digits", *options, stdout=full) as child:
        *bars, line = child.stderr.read().splitlines()
    assert child.returncode == 1 and all("epoch" in bar for bar in bars)
    assert line == "eqkernel: cannot write to standard output: No space left on device"
    assert contents(tmp_path).keys() == {"training.png", "weights.safetensors"}


def test_shipped_weights_run_on_the_reference(tmp_path):
    np.save(tmp_path / "blank.npy", np.zeros((28, 28)))
    results = [
        run("predict", "pretrained", "--image", tmp_path / "blank.npy", "--backend", name)
        for name in ("auto", "reference")
    ]
    assert [result.exit_code for result in results] == [0, 0], results[1].output
    assert results[0].stdout[:-10] == results[1].stdout[:-10]
    assert results[0].stdout.count(", then ") == 2


def test_a_file_called_pretrained_comes_before_the_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Network.dense(64, 9, 10).save("pretrained")
    result = run("predict", "pretrained", "digits")
    assert result.exit_code == 0 and "of 355 test images" in result.stdout, result.output


def test_fashion_mnist_is_read_as_clothes_by_every_command():
    assert cli.TASKS["fashion-mnist"].labels == cli.CLOTHES
    assert cli_conv.SETS["fashion-mnist"] == (data.load_fashion_mnist, cli.CLOTHES)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (cli, "train digits"),
        (cli_conv, "train cortex-conv"),
        (cli_fields, "field --size 32 --steps 1 --backend reference"),
    ],
)
def test_threads_are_set_before_the_work(tmp_path, monkeypatch, module, words):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    asked, work = [], {cli_fields: "FitzHughNagumo"}.get(module, "residual_curves")
    blank = np.zeros((4, 784), np.float32), np.arange(4)
    monkeypatch.setitem(cli_conv.SETS, "mnist", (lambda place: blank * 2, cli_conv.DIGITS))
    monkeypatch.setattr(module, "set_threads", asked.append)
    monkeypatch.setattr(module, work, stop)
    assert run(*words.split(), "--threads", 2).exit_code == 130 and asked == [2]


def test_doctor_names_what_it_found_and_fails_on_a_backend_that_disagrees(monkeypatch):
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for word in ("python", "numba", "threads", "cpu", "float32", "reference", "available", "all is well"):
        assert word in result.stdout
    compute = doctor._settled_and_gradient

    def wrong(backend, *args):
        states, gradient = compute(backend, *args)
        return (states, gradient) if backend == "reference" else (states, 1.001 * gradient)

    monkeypatch.setattr(doctor, "_settled_and_gradient", wrong)
    result = run("doctor")
    assert result.exit_code == 1 and "differs from the reference" in result.stdout


def test_doctor_says_why_a_backend_is_missing(monkeypatch):
    why = {"cpu": "no numba; install it"}
    monkeypatch.setattr(doctor, "unavailable", lambda name: why.get(name) or unavailable(name))
    result = run("doctor")
    assert result.exit_code == 0 and "no numba; install it" in result.stdout


def test_version_and_help():
    assert run("--version").stdout == f"eqkernel {__version__}\n"
    for args in ([], ["--help"], ["train", "--help"]):
        result = run(*args)
        assert result.exit_code == 0 and result.stdout.startswith("Usage: eqkernel")
    module = subprocess.run([sys.executable, "-m", "eqkernel", "--version"], capture_output=True, text=True)
    assert module.stdout == f"eqkernel {__version__}\n"
