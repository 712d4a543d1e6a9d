"""What the command line will not do it says in one line, and leaves nothing."""

import re

import numpy as np
import pytest
from PIL import Image
from test_cli import SMALL, error_line, run

from eqkernel import SCHEDULES, Network, cli_conv


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of a network for digits."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    Network.dense(64, 24, 10).save(path)
    return path


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train", "Missing argument"),
        ("train letters", "'letters' is not one of 'digits'"),
        ("trane digits", "No such command 'trane'"),
        ("train digits --betta 1", "No such option.*--beta"),
        ("train digits --hidden 12,x", "--hidden '12,x': give whole numbers"),
        ("train digits --hidden 0", "at least 1, not 0"),
        ("train digits --neuron relu", "'relu' is not one of 'hard-sigmoid'"),
        ("train digits --beta 0", "beta must be a positive number"),
        ("train digits --beta nan", "beta must be a positive number"),
        ("train digits --gamma 2", r"gamma must lie in \(0, 1\]"),
        ("train digits --free-steps 0", "free_steps must be a whole number of at least 1"),
        ("train digits --nudged-steps -1", "nudged_steps must be a whole number of at least 1"),
        ("train digits --model fhn --recurrent", "leave out --neuron, --recurrent"),
        ("train digits --lr -1", "lr must be a positive number"),
        ("train digits --weight-decay -1", "weight_decay must be"),
        ("train digits --epochs 0", "--epochs"),
        ("train digits --batch 0", "--batch"),
        ("train digits --threads 0", "--threads"),
        ("train digits --validation 1.5", "validation fraction is 1.5"),
        ("train digits --backend reference --dtype float32", "reference.*float32"),
        ("train mnist --data nowhere", "'nowhere' is not a folder"),
        ("train mnist --data .", "MNIST is not in .*train-images"),
        ("train digits --out file", "cannot write into file: .*--out"),
        ("predict", "Missing argument"),
        ("predict nothing.safetensors digits", "no weight file at nothing.safetensors"),
        ("predict file digits", "file is not a whole safetensors file"),
        ("predict WEIGHTS", "add a data set .* or --image"),
        ("predict . digits", "no weight file at .: it is a folder"),
        ("predict WEIGHTS digits --invert", "--invert is for pictures"),
        ("predict WEIGHTS --image small.npy --data .", "--data is for data sets"),
        ("train digits --out taken", "cannot write taken/weights.safetensors: it is there, and not a file"),
        ("field --frames 5 --out a.png", "--frames is for a GIF"),
        ("field --out folder.png", "'folder.png' is a directory"),
        ("field --size 12x", "--size '12x': give the cells of a side"),
        ("field --size 4x5x6", "rows x columns, like 256x512"),
        ("field --size 9 --poke 1,2,-3,1", "the radius of a poke must be at least 0"),
        ("march --digits \N{SUPERSCRIPT TWO}", "--digits .*: give whole numbers of digits"),
        (f"march --digits {'9' * 5000}", "--digits .*: give whole numbers of digits"),
        ("predict WEIGHTS --image nothing.png", "cannot read nothing.png: No such file"),
        ("predict WEIGHTS --image file", "file is truncated or no image"),
        ("predict WEIGHTS --image short.npy", "short.npy is truncated or no image"),
        ("predict WEIGHTS --image small.npy", r"small.npy holds .*\(7, 7\).* takes 64"),
        ("predict WEIGHTS --image bright.npy", "bright.npy holds numbers from .* to 2"),
        ("predict WEIGHTS --image nan.npy", "nan.npy holds numbers from nan"),
        ("predict WEIGHTS --image words.npy", "words.npy holds <U1"),
        ("predict WEIGHTS --image deep.png", r"deep.png is .* no image \(pixels of mode I;16, not bytes\)"),
    ],
)
def test_every_error_is_one_line_and_leaves_nothing(weights, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQKERNEL_DATA", raising=False)
    (tmp_path / "file").write_text("no network, no image, no folder")
    for folder in ("taken/weights.safetensors", "folder.png"):
        (tmp_path / folder).mkdir(parents=True)
    np.save("small.npy", np.zeros((7, 7)))
    np.save("bright.npy", np.full(64, 2.0))
    np.save("nan.npy", np.full(64, np.nan))
    np.save("words.npy", np.full(64, "a"))
    Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save("deep.png")
    (tmp_path / "short.npy").write_bytes((tmp_path / "small.npy").read_bytes()[:-8])
    before = set(tmp_path.rglob("*")), {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    words = args.replace("WEIGHTS", str(weights)).split()
    line = error_line(run(*words))
    assert re.search(message, line), line
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert (set(tmp_path.rglob("*")), after) == before


@pytest.mark.filterwarnings("always")
def test_a_warning_is_a_note_of_one_line(tmp_path):
    hasty = SCHEDULES["converged"].but(free_steps=2, tolerance=1e-12)
    net = Network.dense(64, 9, 8, 10, schedule=hasty, dtype="float64", backend="reference")
    net.save(tmp_path / "hasty.safetensors")
    result = run("predict", tmp_path / "hasty.safetensors", "digits", "--backend", "reference")
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("eqkernel: note: free phase: the steps ran out")


def test_a_network_for_other_images_is_told_so(tmp_path):
    Network.dense(65, 4, 10).save(tmp_path / "other.safetensors")
    line = error_line(run("predict", tmp_path / "other.safetensors", "digits"))
    assert "other.safetensors takes 65 pixels, and digits has images of 64" in line
    Network.dense(64, 4, 12).save(tmp_path / "wide.safetensors")
    line = error_line(run("predict", tmp_path / "wide.safetensors", "digits"))
    assert "wide.safetensors has 12 outputs, and digits 10 classes" in line


def test_a_diverging_training_writes_nothing(tmp_path):
    options = "--lr 1e30 --optimiser sgd --neuron linear --hidden 24,16"
    line = error_line(run("train", "digits", *SMALL, *options.split(), "--out", tmp_path / "new" / "run"))
    assert "diverged" in line or "the loss is" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train digits --hidden 100000000000", "100,000,000 neurons at most"),
        ("train digits --hidden 4,100000000000", "100,000,000 neurons at most"),
        ("train digits --hidden 50000000,50000000", "not enough memory: .*a smaller --hidden"),
        ("train digits --hidden 4 --free-steps 1000000000000000000000", "free_steps is 10{21}: give at most 1,000,000"),
        ("train digits --threads 999999", "'--threads': 999999 is not in the range"),
        ("train digits --data nowhere", "leave out --data"),
        ("field --size 1000000x1000000", "not enough memory: .*--size"),
        ("field --size 10000000000000000000000x3", "choose at most 100,000,000"),
        ("field --threads 999999", "'--threads': 999999 is not in the range"),
        ("response --size 10x10 --cells 1", "--cells '1': give two of the field's cells, 0 to 99"),
        ("response --cells 99,-1", "--cells '99,-1': give two of the field's cells, 0 to 39"),
        ("march --layers 100000", "take too long, at most 2,000"),
        ("march --kappa 1e-12", "take too long, at most 2,000"),
        ("march --kappa 1e-300", "take too long, at most 2,000"),
        ("march --digits 100000 --layers 9", "take too long, at most 2,000"),
        ("train cortex-conv --model dense --adaptation 0.3", "leave out --adaptation"),
        ("train cortex-conv --neuron raw --from pretrained", "--from pretrained: .* are not those of this command"),
        ("train cortex-conv --model dense --from pretrained", "--from pretrained: .* are not those of this command"),
        ("train cortex-conv --adaptation 0.3 --from pretrained", "--from pretrained: .* are not those"),
        ("train conv-hopfield --from pretrained", "--from pretrained: .* are not those of this command"),
    ],
)
def test_what_is_too_large_or_would_be_ignored_is_refused_in_one_line(tmp_path, monkeypatch, args, message):
    blank = np.zeros((4, 784), np.float32), np.arange(4)
    monkeypatch.setitem(cli_conv.SETS, "mnist", (lambda place: blank * 2, cli_conv.DIGITS))
    monkeypatch.chdir(tmp_path)
    result = run(*args.split())
    (line,) = result.stderr.strip().splitlines()  # no bar: nothing has begun
    assert result.exit_code == 2 and re.search(message, line), line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
