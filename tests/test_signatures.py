"""One vocabulary: every backend has the same files, the same verbs and the same parameter names."""

import ast
import inspect
from importlib import import_module
from importlib.util import find_spec

import pytest

import eqkernel as eq
from eqkernel.backends import BACKENDS, load_backend, unavailable
from eqkernel.connections import CONNECTIONS
from eqkernel.data import validation_split
from eqkernel.march import predicted_wall
from eqkernel.neurons import NEURONS

VERBS = {
    "energy": ["energy", "pre", "post", "weight"],
    "drive_post": ["drive", "pre", "weight"],
    "drive_pre": ["drive", "post", "weight"],
    "hebbian": ["trace", "pre", "post", "scale"],
}
EXTRA = {"conv": ["geometry", "winners"]}  # what verbs of a connection take besides, in this order
NEURON_VERBS = {
    "rate": ["out", "drive", "neuron"],
    "relax": ["state", "drive", "step", "neuron"],
    "difference": ["out", "mean", "drive_difference", "neuron"],
    "potential": ["energy", "state", "neuron"],
}
FOLDERS = {"c": "bindings"}  # where a backend does not live in a folder of its name
HERE = [name for name in BACKENDS if not unavailable(name)]


def names(function):
    return list(inspect.signature(function).parameters)


def test_cpu_and_reference_are_here():
    assert {"cpu", "reference"} <= set(HERE)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("stem", CONNECTIONS)
def test_every_connection_has_its_verbs_in_every_backend(backend, stem):
    module = getattr(load_backend(backend), stem)
    folder = FOLDERS.get(backend, backend)
    assert module is import_module(f"eqkernel.{folder}.{stem}"), "the module is the file of that name"
    for verb, parameters in VERBS.items():
        if stem == "bias" and verb == "drive_pre":
            assert not hasattr(module, verb), "a bias has no presynaptic layer to drive"
            continue
        assert names(getattr(module, verb)) == parameters + EXTRA.get(stem, []), f"{backend}.{stem}.{verb}"
        assert getattr(module, verb).__doc__, f"{backend}.{stem}.{verb} says nothing"


@pytest.mark.parametrize("backend", HERE)
def test_pooling_chooses_its_winners_in_every_backend(backend):
    assert names(load_backend(backend).conv.choose) == ["winners", "pre", "weight", "geometry"]


@pytest.mark.parametrize("backend", HERE)
def test_neurons_have_their_verbs_in_every_backend(backend):
    module = load_backend(backend).neurons
    for verb, parameters in NEURON_VERBS.items():
        assert names(getattr(module, verb)) == parameters, f"{backend}.neurons.{verb}"
        assert getattr(module, verb).__doc__


@pytest.mark.parametrize("stem", CONNECTIONS)
def test_a_connection_type_bears_the_name_of_its_file(stem):
    assert CONNECTIONS[stem].stem == stem


def test_neurons_are_known_by_name_and_by_distinct_codes():
    assert all(neuron.name == name for name, neuron in NEURONS.items())
    assert len({neuron.code for neuron in NEURONS.values()}) == len(NEURONS)


def test_every_public_name_exists_and_says_what_it_is():
    package = import_module("eqkernel")
    assert sorted(package.__all__) == sorted(set(package.__all__))
    for name in package.__all__:
        thing = getattr(package, name)
        assert not callable(thing) or inspect.getdoc(thing), f"eqkernel.{name} has no docstring"


def test_public_functions_name_the_network_first():
    package = import_module("eqkernel")
    for name in (
        "free_phase", "nudged_phase", "both_phases", "settle", "hebbian_update", "ep_gradient", "train_step", "predict",
    ):  # fmt: skip
        assert names(getattr(package, name))[0] == "network", name


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (eq.train_step, {"beta": 0.02, "variant": "centered"}),
        (eq.ep_gradient, {"beta": 0.02, "variant": "centered"}),
        (eq.predict, {"size": 512}),
        (eq.Network.recurrent, {"bound": 0.9}),
        (eq.Momentum, {"momentum": 0.9}),
        (eq.Adam, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}),
        (eq.Muon, {"lr": 0.02}),
        (eq.AdaGO, {"lr": 0.5, "clip": 1.0}),
        (validation_split, {"fraction": 0.1}),
        (predicted_wall, {"tolerance": 0.1}),
    ],
)
def test_defaults_are_the_usual_settings(function, expected):
    """The results in docs/ were measured with them."""
    found = inspect.signature(function).parameters
    assert {name: found[name].default for name in expected} == expected


def test_the_named_schedules_have_the_steps_and_tolerances_they_are_known_by():
    found = {name: (plan.free_steps, plan.nudged_steps, plan.tolerance) for name, plan in eq.SCHEDULES.items()}
    assert found == {"converged": (30, 10, 1e-3), "few-step": (3, 1, 0.1), "single-sweep": (1, 1, None)}
    assert {name: plan.name for name, plan in eq.SCHEDULES.items()} == {name: name for name in eq.SCHEDULES}
    assert eq.Schedule().but(gamma=0.5).name == "custom"


def test_cached_kernels_are_stamped_with_every_file_whose_numbers_they_hold():
    """Else a code that changed would leave kernels in the cache that know the old one."""
    from eqkernel.cpu.compile import _HERE, _SOURCES

    used = set()
    for path in _HERE.glob("*.py"):
        module, tree = import_module(f"eqkernel.cpu.{path.stem}"), ast.parse(path.read_text())
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 2]
        origin = {alias.asname or alias.name: node.module for node in imports for alias in node.names}
        kernels = [k.py_func for k in vars(module).values() if getattr(k, "__module__", "") == module.__name__
                   and hasattr(k, "py_func")]  # fmt: skip
        used |= {origin[name] for kernel in kernels for name in kernel.__code__.co_names if name in origin}
    assert used >= {"geometry", "neurons"}
    assert used <= {path.stem for path in _SOURCES if path.parent != _HERE}


def test_backend_c_is_there_wherever_its_extension_was_built():
    """A module that fails to import would otherwise pass for a missing compiler, and skip every test of the backend."""
    if find_spec("eqkernel.bindings._eqkernel") is None:
        pytest.skip("the C library was not built here")
    assert unavailable("c") is None
