"""The picture shows what the run recorded: every curve, every tile in its place, every error marked."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from eqkernel.figures import FLOOR, RED, Story, draw
from eqkernel.training import Epoch


def epoch(number, loss, accuracy, held_out):
    return Epoch(number, 5, loss, accuracy, 3.0, 1.0, 0.1, 0, 1e4, held_out)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """(story, figure): a small story and the figure drawn of it."""
    rng = np.random.default_rng(0)
    curves = {"before": ([1.0, 0.1, 0.0], [0.5, 1e-3, 1e-12]), "after": ([2.0, 0.2, 0.02], [1.0, 0.1, 0.01])}
    story = Story(
        title="a title",
        histories=[[epoch(1, 2.0, 0.5, 0.6), epoch(2, 1.0, 0.9, 0.8)], [epoch(1, 3.0, 0.4, 0.5)]],
        held_out="validation",
        residuals=curves,
        steps=(3, 1),
        features=rng.normal(size=(7, 4, 4)),
        images=rng.random((3, 4, 4)),
        labels=["3", "5", "7"],
        guesses=["8", "5", "7"],
        errors="one error",
    )
    figures = []
    save = Figure.savefig

    def savefig(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    draw(story, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    return story, figures[0]


def test_curves_are_the_records(drawn):
    _, figure = drawn
    loss, accuracy = figure.axes[:2]
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 2.0], [2, 1.0]], [[1, 3.0]]]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[50, 90], [60, 80], [40], [50]]
    assert [text.get_text() for text in accuracy.get_legend().texts] == ["training", "validation"]
    low, high = accuracy.get_ylim()
    assert low < 50 and high > 100


def test_residuals_of_zero_are_drawn_at_the_floor(drawn):
    story, figure = drawn
    axes = figure.axes[2]
    curves = {line.get_label(): line.get_ydata().tolist() for line in axes.lines if "phase" in line.get_label()}
    assert curves["free phase, before training"] == [1.0, 0.1, FLOOR]
    assert curves["nudged phase, before training"] == [0.5, 1e-3, FLOOR]
    assert curves["free phase, after training"] == story.residuals["after"][0]
    bands = [line.get_xdata()[0] for line in axes.lines if "phase" not in line.get_label()]
    assert bands == [3, 1] and axes.get_ylim()[0] < FLOOR


def test_every_feature_is_shown_in_its_own_scale_and_apart(drawn):
    story, figure = drawn
    (picture,) = figure.axes[3].images
    block = np.ma.filled(picture.get_array(), np.nan)
    tiles = []
    for row in range(0, block.shape[0], 5):
        for column in range(0, block.shape[1], 5):
            tile = block[row : row + 4, column : column + 4]
            assert np.isnan(block[row + 4, column : column + 5]).all()
            if not np.isnan(tile).all():
                tiles.append(tile)
    assert len(tiles) == 7
    for tile, feature in zip(tiles, story.features, strict=True):
        np.testing.assert_allclose(tile, feature / abs(feature).max())


def test_errors_are_marked(drawn):
    _, figure = drawn
    axes = figure.axes[4]
    words = {text.get_text(): to_rgba(text.get_color()) for text in axes.texts}
    assert list(words) == ["3, read 8", "5", "7"]
    assert words["3, read 8"] == to_rgba(RED) != words["5"] == words["7"]
    assert axes.get_title() == "one error"
