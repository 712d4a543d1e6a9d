"""The backend as users meet it: without CuPy, without a driver, with a GPU; arrays in and out; what errors say."""

import inspect
import io
import os
import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import shim
from compiled import FASTEST
from cuda_twins import on_cuda
from shim.stand_in import Array

import eqkernel as eq
from eqkernel import cuda
from eqkernel.backends import unavailable
from eqkernel.cuda import device
from eqkernel.cuda.launcher import HERE
from eqkernel.fields import FitzHughNagumo
from eqkernel.interop import on_device, to_host

NET = (5, 8, 7, 3)
X, Y = np.random.default_rng(0).random((6, 5)), np.arange(6) % 3


# -- without a GPU ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh():
    """What was found out about this machine is forgotten before and after."""
    device._cupy.cache_clear()
    yield
    device._cupy.cache_clear()


class NoDriver(RuntimeError):
    pass


def fake_cupy(devices=0, error=None):
    """A CuPy that imports, on a machine with so many GPUs or a broken driver."""
    cupy = ModuleType("cupy")

    def count():
        if error:
            raise NoDriver(error)
        return devices

    runtime = type("runtime", (), {"getDeviceCount": staticmethod(count), "CUDARuntimeError": NoDriver})
    cupy.cuda, cupy.__version__ = type("cuda", (), {"runtime": runtime}), "14.2.0"
    return cupy


@pytest.mark.parametrize(
    ("cupy", "why"),
    [
        (None, "CuPy is not installed"),
        (fake_cupy(error="cudaErrorInsufficientDriver"), "no usable driver .cudaErrorInsufficientDriver."),
        (fake_cupy(devices=0), "finds no GPU"),
    ],
    ids=["no CuPy", "no driver", "no GPU"],
)
def test_backend_cuda_without_a_gpu_is_one_clear_error(cupy, why, monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert re.search(why, unavailable("cuda"))
    for build in (
        lambda: eq.Network.dense(*NET, backend="cuda"),
        lambda: device.current(),
        lambda: FitzHughNagumo(9, backend="cuda"),
    ):
        with pytest.raises(eq.BackendError, match=why) as caught:
            build()
        assert "pip install 'eqkernel[cuda12]'" in str(caught.value) and "cuda13" in str(caught.value)
    assert eq.Network.dense(*NET).backend == FASTEST  # "auto" does without


def test_importing_eqkernel_does_not_import_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text("raise SystemExit('CuPy is imported')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", "import eqkernel, eqkernel.cuda"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_auto_does_not_choose_what_was_not_measured():
    with shim.running() if shim.REASON is None else device.using(None):
        assert eq.Network.dense(*NET).backend == FASTEST


def test_doctor_explains(monkeypatch, fresh):
    from rich.console import Console

    from eqkernel import doctor

    monkeypatch.setitem(sys.modules, "cupy", None)
    console = Console(width=400, file=io.StringIO())
    console.print(doctor._backends())
    said = console.file.getvalue()
    assert "CuPy is not installed" in said and "eqkernel[cuda12]" in said


@shim.needed
def test_doctor_checks_the_backend_where_it_is(monkeypatch):
    from eqkernel import doctor

    monkeypatch.setattr(doctor, "BACKENDS", {name: doctor.BACKENDS[name] for name in ("reference", "cuda")})
    with shim.running():
        table, agree = doctor._check()
    assert agree
    assert "cuda" in list(table.columns[0].cells)


# -- one vocabulary --------------------------------------------------------------------------------------------------

VERBS = ("energy", "drive_post", "drive_pre", "hebbian", "rate", "relax", "difference", "potential")
ARGUMENTS = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(([^)]*)\)")


def names(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("stem", [*eq.connections.CONNECTIONS, "diffusion", "neurons"])
def test_every_stem_has_the_verbs_of_the_reference(stem):
    reference = import_module(f"eqkernel.reference.{stem}")
    module = getattr(cuda, stem)
    for verb in VERBS:
        if hasattr(reference, verb):
            assert names(getattr(module, verb)) == names(getattr(reference, verb)), f"cuda.{stem}.{verb}"
            assert getattr(module, verb).__doc__


def test_a_kernel_has_the_arguments_of_its_verb():
    """In the same order and by the same names; sizes come on top. The stand-in checks their types."""
    found = 0
    for path in HERE.glob("*.cu"):
        module = getattr(cuda, path.stem, None)
        for name, arguments in ARGUMENTS.findall(path.read_text()):
            if name not in VERBS or not hasattr(module, name):
                continue
            kernel = [argument.split()[-1].lstrip("*") for argument in arguments.split(",")]
            rest = iter(kernel)
            wanted = [argument for argument in names(getattr(module, name)) if argument != "geometry"]  # compiled in
            assert all(argument in rest for argument in wanted), f"{path.name}: {name}{kernel}"
            found += 1
    assert found >= 7


def test_every_text_says_what_it_is():
    for path in (*HERE.glob("*.cu"), *HERE.glob("*.cuh")):
        assert path.read_text().startswith("// "), path.name
        assert max(map(len, path.read_text().splitlines())) <= 130, path.name


# -- arrays of others ------------------------------------------------------------------------------------------------


@shim.needed
def test_results_come_back_as_the_input_came():
    host = eq.Network.dense(*NET, backend="cpu")
    expected = eq.free_phase(host, X)
    with shim.running():
        net, arrays = on_cuda(host), device.current().arrays
        there = arrays.asarray(X.astype(np.float32))
        for x, kind in ((X, np.ndarray), (there, arrays.ndarray)):
            free = eq.free_phase(net, x)
            nudged = eq.nudged_phase(net, free, Y, 0.1)
            gradient = eq.ep_gradient(net, x, Y)
            for result in (*free.state, *nudged.mean, *nudged.difference, *gradient, eq.predict(net, x)):
                assert isinstance(result, kind)
            for found, state in zip(free.state, expected.state, strict=True):
                np.testing.assert_allclose(to_host(found), state, atol=1e-5)


class Tensor:
    """Device memory of some other library, handed over by DLPack alone."""

    def __init__(self, array):
        self.array = array

    shape = property(lambda self: self.array.shape)
    __cuda_array_interface__ = property(lambda self: self.array.__cuda_array_interface__)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        return Tensor(self.array[key])

    def __dlpack__(self, **_):
        return self.array


@shim.shim_only
def test_foreign_device_arrays_are_used_where_they_lie(monkeypatch):
    with shim.running():
        net, arrays = on_cuda(eq.Network.dense(*NET, backend="cpu")), device.current().arrays
        memory = arrays.asarray(X.astype(np.float32))
        monkeypatch.setattr(arrays, "from_dlpack", lambda tensor: tensor.__dlpack__(), raising=False)
        x = eq.phases.check_input(net, Tensor(memory))
        assert x.data.ptr == memory.data.ptr, "no copy"
        found, expected = eq.free_phase(net, Tensor(memory)), eq.free_phase(net, memory)
        np.testing.assert_array_equal(found.output.get(), expected.output.get())
        labels = Tensor(arrays.asarray(Y))
        one = eq.nudged_phase(net, expected, labels, 0.1)
        other = eq.nudged_phase(net, expected, Y, 0.1)
        np.testing.assert_array_equal(one.difference[1].get(), other.difference[1].get())


@shim.needed
def test_a_step_on_device_arrays_is_that_on_host_arrays():
    host = eq.Network.dense(*NET, backend="cpu", dtype="float64")
    with shim.running():
        arrays = device.current().arrays
        nets, optimisers = [on_cuda(host) for _ in range(2)], [eq.Momentum(0.1) for _ in range(2)]
        for _ in range(3):
            steps = [
                eq.train_step(net, x, y, optimiser=optimiser)
                for net, optimiser, (x, y) in zip(
                    nets, optimisers, ((X, Y), (arrays.asarray(X), arrays.asarray(Y))), strict=True
                )
            ]
            assert steps[0] == steps[1]
        np.testing.assert_array_equal(nets[0].buffer.get(), nets[1].buffer.get())


@shim.shim_only
@pytest.mark.parametrize("cost", ["cross-entropy", "squared-error"])
def test_a_step_waits_for_the_device_once(cost, monkeypatch):
    """And before the update: where it diverges, or labels on the device are none, no weight has changed."""
    waits = []
    for name in ("get", "__float__", "__int__", "__bool__"):
        plain = getattr(Array, name)
        monkeypatch.setattr(Array, name, lambda self, plain=plain: (waits.append(1), plain(self))[1])
    host = eq.Network.dense(*NET, cost=cost, backend="cpu")
    with shim.running():
        upload = device.current().arrays.asarray
        nets, x, step_by_step = [on_cuda(host) for _ in range(2)], upload(X.astype(np.float32)), eq.SGD(0.1)
        for y in (Y, upload(Y), *([upload(np.eye(3, dtype=np.float32)[Y])] if cost == "squared-error" else [])):
            waits.clear()
            found = eq.train_step(nets[0], x, y, lr=0.1)
            assert len(waits) == 1
            free = eq.free_phase(nets[1], x)
            nudged = eq.nudged_phase(nets[1], free, y, 0.02)
            loss, accuracy = eq.phases.measure(nets[1], free, y)
            eq.hebbian_update(nets[1], nudged, step_by_step)
            assert (found.loss, found.accuracy) == (pytest.approx(loss, rel=1e-6), pytest.approx(accuracy))
            np.testing.assert_array_equal(nets[0].buffer.get(), nets[1].buffer.get())
        before = nets[0].buffer.get()
        with pytest.raises(eq.EqkernelError, match="labels run from 4 to 6"):
            eq.train_step(nets[0], x, upload(Y + 4), lr=0.1)
        spoilt = X.astype(np.float32)
        spoilt[2, 3] = np.nan
        with pytest.raises(eq.EqkernelError, match="x holds a NaN"):
            eq.train_step(nets[0], upload(spoilt), Y, lr=0.1)
        np.testing.assert_array_equal(nets[0].buffer.get(), before)
        for parameter in nets[0].parameters[2:]:
            parameter.fill(3e38)
        before = nets[0].buffer.get()
        with pytest.raises(eq.DivergenceError):
            eq.train_step(nets[0], x, Y, lr=0.1)
        np.testing.assert_array_equal(nets[0].buffer.get(), before)


@shim.needed
def test_bad_device_arrays_are_one_clear_error():
    host = eq.Network.dense(*NET, backend="cpu")
    with shim.running():
        net, upload = on_cuda(host), device.current().arrays.asarray
        x = upload(X.astype(np.float32))
        free = eq.free_phase(net, x)
        spoilt = X.astype(np.float32)
        spoilt[2, 3] = np.nan
        for call, why in (
            (lambda: eq.free_phase(host, x), "x lies on a GPU, and this network on the host"),
            (lambda: eq.free_phase(net, x[:, :4]), "takes .B, 5."),
            (lambda: eq.free_phase(net, upload(spoilt)), "x holds a NaN"),
            (lambda: eq.nudged_phase(net, free, upload(Y + 7), 0.1), "labels run from 7 to 9"),
            (lambda: eq.nudged_phase(net, free, upload(X[:, 0]), 0.1), "y must be labels"),
            (lambda: eq.nudged_phase(net, free, Y[:4], 0.1), "x has 6 samples and y has 4"),
        ):
            with pytest.raises(eq.EqkernelError, match=why):
                call()


class Stream:
    """One of CuPy's or PyTorch's, by its address; `log` is what streams were asked for."""

    log: list = []  # noqa: RUF012

    def __init__(self, pointer):
        self.ptr = self.cuda_stream = pointer

    @classmethod
    def from_external(cls, stream):
        return cls(stream.__cuda_stream__()[1])

    def __cuda_stream__(self):
        return 0, self.ptr

    def record(self):
        return self.ptr

    def wait_event(self, recorded):
        self.log.append(f"{self.ptr} waits for {recorded}")

    def __enter__(self):
        self.log.append(f"{self.ptr} is current")

    def __exit__(self, *_):
        self.log.append(f"{self.ptr} was current")


@pytest.mark.parametrize("cupy_14", [True, False])
def test_streams_wait_for_one_another_where_they_differ(cupy_14, monkeypatch):
    """The stream of a tensor for CuPy's, which may be writing the weights still, and CuPy's for what was done there."""

    def refused(pointer):
        raise DeprecationWarning("use Stream.from_external")

    monkeypatch.setattr(Stream, "log", log := [])
    owner, tensor = Stream(7), type("Tensor", (), {"__module__": "torch", "device": "cuda:0"})()
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(current_stream=lambda device: owner)
    monkeypatch.setitem(sys.modules, "torch", torch)
    gpu = object.__new__(device.CuPy)
    streams = {"Stream": Stream, "ExternalStream": refused} if cupy_14 else {"Stream": object, "ExternalStream": Stream}
    gpu.arrays = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: Stream(3), **streams))
    forked = ["7 waits for 3", "7 is current", "work", "7 was current", "3 waits for 7"]
    with gpu.on_stream_of(tensor):
        log.append("work")
    assert log == forked
    log.clear()
    with pytest.raises(ZeroDivisionError), gpu.on_stream_of(tensor):  # what was begun is waited for all the same
        log.append("work")
        raise ZeroDivisionError
    assert log == forked
    log.clear()
    owner.cuda_stream = 3
    with gpu.on_stream_of(tensor), gpu.on_stream_of(X):
        pass
    assert log == []


@pytest.mark.skipif(not shim.ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("own", [False, True], ids=["default stream", "stream of its own"])
def test_a_step_on_tensors_is_that_on_host_arrays(own):
    """Weights are read on CuPy's stream as soon as PyTorch's has its work."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    host = eq.Network.dense(*NET, backend="reference", dtype="float64")
    with shim.running(), torch.cuda.stream(torch.cuda.Stream() if own else None):
        nets, optimisers = [on_cuda(host), on_cuda(host), host], [eq.Momentum(0.1) for _ in range(3)]
        x, y = torch.as_tensor(X, device="cuda"), torch.as_tensor(Y, device="cuda")
        for _ in range(3):
            steps = [
                eq.train_step(net, *given, optimiser=optimiser)
                for net, optimiser, given in zip(nets, optimisers, ((x, y), (X, Y), (X, Y)), strict=True)
            ]
            assert steps[0] == steps[1] and steps[0].loss == pytest.approx(steps[2].loss, rel=1e-9)
            found = nets[0].buffer.get()
            np.testing.assert_array_equal(found, nets[1].buffer.get())
            np.testing.assert_allclose(found, host.buffer, rtol=0, atol=1e-9)
        state = eq.free_phase(nets[0], x).output
        assert isinstance(state, torch.Tensor) and state.is_cuda
        np.testing.assert_allclose(state.cpu().numpy(), eq.free_phase(host, X).output, rtol=0, atol=1e-9)


@shim.needed
def test_weights_are_saved_and_read_on_either_side(tmp_path):
    pytest.importorskip("safetensors")
    host = eq.Network.recurrent(*NET, backend="cpu")
    with shim.running():
        on_cuda(host).save(tmp_path / "net.safetensors")
        again = eq.Network.load(tmp_path / "net.safetensors", "cuda")
        assert on_device(again.buffer)
        np.testing.assert_array_equal(to_host(again.buffer), host.buffer)
    np.testing.assert_array_equal(eq.Network.load(tmp_path / "net.safetensors", "cpu").buffer, host.buffer)


@shim.needed
def test_the_field_is_stepped_on_the_device():
    with shim.running():
        ours, theirs = (FitzHughNagumo((21, 40), backend=backend, dtype="float64") for backend in ("cuda", "reference"))
        for field in (ours, theirs):
            field.step(7)
        np.testing.assert_allclose(ours.u, theirs.u, rtol=0, atol=1e-13)


@shim.needed
def test_an_output_that_is_not_finite_is_divergence():
    """Weights of a readout that overflow: no state of the dynamics shows it."""
    host = eq.Network.dense(5, 8, 3, backend="cpu")
    host.parameters[2][...] = [[3e38], [-3e38], [0]]
    host.parameters[1][...] = 0.9
    with shim.running():
        net = on_cuda(host)
        with pytest.raises(eq.DivergenceError, match="free phase diverged"):
            eq.free_phase(net, X)
