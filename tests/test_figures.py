"""The picture shows what the run recorded: every curve, every tile in its place, every error marked."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from eqkernel.conv_figures import MapStory, draw_maps
from eqkernel.figures import FLOOR, RED, Story, draw
from eqkernel.training import Epoch


def epoch(number, loss, accuracy, held_out):
    return Epoch(number, 5, loss, accuracy, 3.0, 1.0, 0.1, 0, 1e4, held_out)


@pytest.fixture
def figures(monkeypatch):
    """A list of what is saved."""
    saved, save = [], Figure.savefig

    def savefig(figure, *args, **options):
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


@pytest.fixture
def drawn(figures, tmp_path):
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


def test_scales_and_colours_are_those_that_the_titles_tell(drawn):
    loss, _, residuals, features, examples = drawn[1].axes
    assert loss.get_yscale() == residuals.get_yscale() == "log"
    assert "red excites, blue inhibits" in features.get_title() and features.images[0].get_cmap().name == "RdBu_r"
    assert features.images[0].get_clim() == (-1, 1) and examples.images[0].get_clim() == (0, 1)


def test_maps_stand_below_their_images_and_signed_ones_have_signed_colours(figures, tmp_path):
    rng, curve = np.random.default_rng(0), ([1.0], [1.0])
    story = MapStory(
        title="a title",
        histories=[[epoch(1, 2.0, 0.5, 0.6)]],
        held_out="test",
        residuals={"before": curve, "after": curve},
        steps=(3, 1),
        filters=rng.normal(size=(4, 3, 3)),
        images=rng.random((2, 5, 5)),
        labels=["3", "5"],
        maps={"layer 1": rng.random((2, 4, 4)), "layer 2": rng.normal(size=(2, 1, 10))},
    )
    draw_maps(story, tmp_path / "picture.png")
    filters, *rows = figures[0].axes[3:]
    assert "red excites, blue inhibits" in filters.get_title() and filters.images[0].get_cmap().name == "RdBu_r"
    assert [axes.get_title() for axes in rows] == ["3", "5", "", "", "", ""]
    pictures = [axes.images[0] for axes in rows]
    below = [image for maps in story.maps.values() for image in maps]
    for picture, expected in zip(pictures, (*story.images, *below), strict=True):
        np.testing.assert_array_equal(picture.get_array(), expected)
    assert [picture.get_cmap().name for picture in pictures[::2]] == ["gray_r", "magma", "RdBu_r"]
    lows, highs = zip(*(picture.get_clim() for picture in pictures), strict=True)
    assert lows[:4] == (0, 0, 0, 0) and lows[4:] == (-highs[4], -highs[5])
