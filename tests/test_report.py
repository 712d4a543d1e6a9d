"""What a run tells of itself is what happened: the tables, the story of the picture, and the doctor's findings."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from compiled import HERE
from rich.console import Console

from eqkernel import SCHEDULES, UnsettledWarning, doctor, report
from eqkernel.training import Epoch


def test_a_row_of_the_confusion_is_a_class_and_a_column_what_it_was_taken_for():
    table = report.confusion(np.array([1, 1, 0]), np.array([0, 0, 0]), ("a", "b"))
    assert [list(column.cells) for column in table.columns] == [["a", "b"], ["[green]1", "·"], ["[red]2", "[green]0"]]
    assert table.title == "33.33 % of 3 test images are read rightly"


def test_unsettled_batches_are_counted_over_all_epochs():
    history = [Epoch(n, 4, 1.0, 0.5, 3.0, 1.0, 0.1, unsettled, 1e4, 0.5) for n, unsettled in ((1, 3), (2, 1))]
    table = report.results([0], [history], "test")
    assert [list(column.cells) for column in table.columns if column.header == "unsettled"] == [["4/8"]]


def test_the_story_is_of_the_largest_features_and_the_surest_errors(monkeypatch):
    output = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    monkeypatch.setattr(report, "predict", lambda net, x, output: answers)
    answers, rows = output, np.ones(4)
    net = SimpleNamespace(schedule=SCHEDULES["few-step"])
    x, learned = np.outer(range(4), rows), np.outer([1, 3, 2], rows)
    story = report.story("title", net, learned, [], "test", x, np.zeros(4, int), "ab", {})
    assert story.features[:, 0, 0].tolist() == [3, 2, 1]
    assert story.images[:, 0, 0].tolist() == [2, 3, 1, 0]  # the errors first, the surest of them foremost
    assert story.labels == ["a"] * 4 and story.guesses == ["b", "b", "b", "a"]
    assert story.errors.startswith("3 of 4 test images misread") and story.steps == (3, 1)


def test_nothing_warns_beneath_a_progress_bar():
    with report.progress_of(1, 1, 1):
        for kind in (UnsettledWarning, RuntimeWarning):
            warnings.warn("the bar stays whole", kind, stacklevel=1)


@pytest.mark.parametrize("which", [0, 1], ids=["states", "gradients"])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float64", 1e-11)])
@pytest.mark.parametrize("backend", HERE)
def test_doctor_finds_one_wrong_result_among_right_ones(monkeypatch, backend, dtype, error, which):
    def found(name, kind, x, y):
        results = [np.ones(3), np.ones(3)]
        results[which] *= 1 + error * ((name, kind) == (backend, dtype))
        return results

    console = Console(quiet=True)
    monkeypatch.setattr(doctor, "_settled_and_gradient", found)
    assert not doctor.examine(console)
    error = 0
    assert doctor.examine(console)


def test_doctor_names_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    rows = dict(zip(*(column.cells for column in doctor._facts().columns), strict=True))
    assert all(rows[package] == "[red]missing: reinstall eqkernel" for package in doctor.PACKAGES)
    assert not set(rows) & set(doctor.OPTIONAL)
