"""Weight files: networks come back bit for bit or not at all, and a failed write loses nothing."""

import errno
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file
from test_network import PLAN, TOPOLOGIES, X, Y

from eqkernel import (
    BackendError,
    EqkernelError,
    Network,
    ep_gradient,
    predict,
    train_step,
)
from eqkernel.weightfile import replacing


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_network_comes_back_bit_for_bit(topology, dtype, tmp_path):
    net, path = TOPOLOGIES[topology](dtype), tmp_path / "net.safetensors"
    train_step(net, X, Y, lr=0.05)
    net.save(path)
    twin = Network.load(path)
    np.testing.assert_array_equal(twin.buffer, net.buffer)
    assert twin.buffer.dtype == net.buffer.dtype and twin.buffer is not net.buffer
    assert twin.layers == net.layers and twin.connections == net.connections and twin.schedule == net.schedule
    assert (twin.cost.name, twin.seed, twin.backend) == (net.cost.name, net.seed, net.backend)
    np.testing.assert_array_equal(predict(twin, X, output=True), predict(net, X, output=True))
    for a, b in zip(ep_gradient(twin, X, Y), ep_gradient(net, X, Y), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=5),
    recurrent=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    data=st.data(),
)
def test_any_finite_weights_survive(tmp_path_factory, sizes, recurrent, dtype, data):
    net = (Network.recurrent if recurrent else Network.dense)(*sizes, dtype=dtype)
    raw = data.draw(st.binary(min_size=16, max_size=64))
    bits = np.resize(np.frombuffer(raw[: len(raw) // 8 * 8], dtype), net.buffer.size)
    for parameter, at in zip(net.parameters, net.offsets, strict=True):
        mine = bits[at : at + parameter.size].reshape(parameter.shape)
        parameter[...] = np.where(np.isfinite(mine), mine, 0.5)  # denormals and -0.0 included
    path = tmp_path_factory.mktemp("any") / "net"
    net.save(path)
    assert Network.load(path).buffer.tobytes() == net.buffer.tobytes()


def test_load_takes_a_string_and_a_backend(tmp_path):
    TOPOLOGIES["dense"]("float64").save(str(tmp_path / "net"))
    assert Network.load(str(tmp_path / "net"), backend="reference").backend == "reference"


def test_load_computes_in_another_type_if_asked(tmp_path):
    net, path = TOPOLOGIES["recurrent"]("float32"), tmp_path / "net"
    net.save(path)
    wide = Network.load(path, "reference", dtype="float64")
    assert wide.backend == "reference" and wide.dtype == "float64"
    np.testing.assert_array_equal(wide.buffer, net.buffer)
    wide.save(path)
    np.testing.assert_array_equal(Network.load(path, dtype="float32").buffer, net.buffer)
    wide.parameters[1] = 1e300
    wide.save(path)
    with pytest.raises(EqkernelError, match="bias.1 holds .* as float32"):
        Network.load(path, dtype="float32")


def test_load_says_what_is_wrong_with_a_backend_or_a_type(tmp_path):
    path = tmp_path / "net"
    TOPOLOGIES["dense"]("float32").save(path)
    with pytest.raises(BackendError, match="'reference' has no float32, only float64: choose dtype='float64'"):
        Network.load(path, "reference")
    for options, message in (({"backend": "cpus"}, "unknown backend 'cpus'"), ({"dtype": "int8"}, "dtype must be")):
        with pytest.raises(EqkernelError, match=f"^{message}"):
            Network.load(path, **options)


def test_only_weight_files_need_safetensors(tmp_path):
    code = """if True:
        import sys
        sys.modules["safetensors"] = None
        import eqkernel as eq
        net = eq.Network.dense(6, 8, 3, dtype="float64", backend="reference")
        for call in (net.save, eq.Network.load):
            try:
                call(sys.argv[1])
            except eq.EqkernelError as error:
                assert "pip install safetensors" in str(error), error
            else:
                raise AssertionError(call)
    """
    path = tmp_path / "net"
    path.write_bytes(b"as it was")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"as it was" and list(tmp_path.iterdir()) == [path]


def test_numpy_scalars_as_settings_can_be_saved(tmp_path):
    plan = PLAN.but(gamma=np.float32(0.5), tolerance=np.float32(1e-3))
    Network.dense(np.int64(6), 8, 3, schedule=plan, seed=np.int64(3)).save(tmp_path / "net")
    twin = Network.load(tmp_path / "net")
    assert twin.seed == 3 and twin.gamma == 0.5


@pytest.fixture
def saved(tmp_path):
    """A weight file, its metadata and its tensors."""
    path = tmp_path / "net.safetensors"
    TOPOLOGIES["dense"]("float32").save(path)
    with safe_open(path, "numpy") as handle:
        return path, handle.metadata(), {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


def test_the_file_says_what_it_is(saved):
    path, metadata, tensors = saved
    assert metadata["format"] == "eqkernel" and metadata["version"] == "1"
    assert sorted(tensors) == ["bias.1", "bias.2", "bias.3", "dense.0-1", "dense.1-2", "dense.2-3"]
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~umask())


def umask():
    now = os.umask(0)
    os.umask(now)
    return now


def refuses(path, message):
    with pytest.raises(EqkernelError, match=message) as caught:
        Network.load(path)
    assert str(path) in str(caught.value), "the error must name the file"


def test_missing_file_and_folder_are_refused(tmp_path):
    refuses(tmp_path / "nothing", "no weight file at")
    refuses(tmp_path, "no weight file at")
    for path in (None, 7, "n" * 300, "a\0b"):
        with pytest.raises(EqkernelError, match="no weight file at"):
            Network.load(path)


def test_every_truncation_is_refused(saved, tmp_path):
    whole = saved[0].read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, 40), len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        refuses(cut, "not a whole safetensors file")


def test_corrupt_and_foreign_files_are_refused(saved, tmp_path):
    path, _, tensors = saved
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x00" * 8 + path.read_bytes()[8:])
    refuses(bad, "not a whole safetensors file")
    bad.write_bytes(path.read_bytes() + b"tail")
    refuses(bad, "not a whole safetensors file")
    bad.write_bytes(os.urandom(500))
    refuses(bad, "not a whole safetensors file")
    np.savez(tmp_path / "bad.npz", **tensors)
    refuses(tmp_path / "bad.npz", "not a whole safetensors file")
    save_file(tensors, bad)
    refuses(bad, "not of eqkernel")
    save_file(tensors, bad, {"format": "pt"})
    refuses(bad, "not of eqkernel")


@pytest.mark.parametrize("version", ["0", "2", "1.0", ""])
def test_other_versions_are_refused(saved, version, tmp_path):
    _, metadata, tensors = saved
    (tmp_path / "v").write_bytes(save(tensors, {**metadata, "version": version}))
    refuses(tmp_path / "v", "format version .* reads version 1")


def forge(saved, path, change):
    """The saved file with its description changed in place, or by what `change` returns if that is a list."""
    _, metadata, tensors = saved
    description = json.loads(metadata["network"])
    changed = change(description)
    description = changed if isinstance(changed, list) else description
    path.write_bytes(save(tensors, {**metadata, "network": json.dumps(description)}))


DESCRIPTIONS = {
    "no layers": lambda d: d.update(layers=[]),
    "no list of layers": lambda d: d.__delitem__("layers"),
    "no schedule": lambda d: d.pop("schedule"),
    "no dtype": lambda d: d.pop("dtype"),
    "a list": lambda d: [1, 2],
    "layers of three": lambda d: d.update(layers=[[6, "tanh", 1]]),
    "layers a number": lambda d: d.update(layers=7),
    "a layer of text": lambda d: d["layers"][1].__setitem__(0, "8"),
    "unknown neuron": lambda d: d["layers"][1].__setitem__(1, "relu"),
    "unknown connection": lambda d: d["connections"][0].__setitem__(0, "diagonal"),
    "connection out of range": lambda d: d["connections"][0][1].update(post=9),
    "connection of text": lambda d: d["connections"][0][1].update(post="1"),
    "unknown field": lambda d: d["connections"][0][1].update(stride=2),
    "unknown cost": lambda d: d.update(cost="hinge"),
    "unknown schedule field": lambda d: d["schedule"].update(speed=2),
    "bad gamma": lambda d: d["schedule"].update(gamma=-1),
    "text gamma": lambda d: d["schedule"].update(gamma="1"),
    "unknown dtype": lambda d: d.update(dtype="int8"),
    "other dtype": lambda d: d.update(dtype="float64"),
    "negative seed": lambda d: d.update(seed=-1),
    "huge": lambda d: d["layers"][1].__setitem__(0, 10**12),
    "other size": lambda d: d["layers"][1].__setitem__(0, 9),
    "one more layer": lambda d: d["layers"].insert(1, [8, "tanh"]),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_descriptions_of_no_network_are_refused(case, saved, tmp_path):
    forge(saved, tmp_path / "f", DESCRIPTIONS[case])
    refuses(tmp_path / "f", "describes no network|are missing or of another shape or type")


def test_a_description_that_is_no_json_is_refused(saved, tmp_path):
    _, metadata, tensors = saved
    for text in ("", "{", "null", "[" * 100_000):
        (tmp_path / "f").write_bytes(save(tensors, {**metadata, "network": text}))
        refuses(tmp_path / "f", "describes no network")
    (tmp_path / "f").write_bytes(save(tensors, {k: v for k, v in metadata.items() if k != "network"}))
    refuses(tmp_path / "f", "describes no network")


def test_a_type_that_numpy_lacks_is_refused(saved, tmp_path):
    _, metadata, _ = saved
    tensor = {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}
    header = json.dumps({"__metadata__": metadata, "dense.0-1": tensor}).encode()
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    refuses(tmp_path / "f", "not a whole safetensors file|are missing or of another shape or type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bias.2"), "bias.2 are missing"),
        (lambda t: t.update({"dense.0-1": t["dense.0-1"].T.copy()}), "dense.0-1 are missing or of another shape"),
        (lambda t: t.update({"dense.0-1": t["dense.0-1"].astype("f8")}), "dense.0-1 .* or type"),
        (lambda t: t["dense.1-2"].__setitem__((3, 4), np.nan), "dense.1-2 holds a NaN"),
        (lambda t: t["bias.1"].__setitem__(0, -np.inf), "bias.1 holds a NaN or an infinity"),
    ],
    ids=["missing", "transposed", "type", "nan", "inf"],
)
def test_weights_that_do_not_fit_or_are_not_finite_are_refused(change, message, saved, tmp_path):
    _, metadata, tensors = saved
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    change(tensors)
    (tmp_path / "w").write_bytes(save(tensors, metadata))
    refuses(tmp_path / "w", message)


# -- writing: whole or not at all ------------------------------------------------------------------------------------


@contextmanager
def files_limited_to(size):
    """Any file that this process writes may hold `size` bytes: a disk that fills up while writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def without_privileges():
    """As a user who may not write into another's folder (root may write anywhere)."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def assert_untouched(path, old, net, before):
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path], "a temporary file was left behind"
    np.testing.assert_array_equal(net.buffer, before)


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_disk_that_fills_up_leaves_the_old_file(saved, room):
    path, _, _ = saved
    old, net = path.read_bytes(), Network.dense(60, 80, 10)
    before = net.buffer.copy()
    with (
        files_limited_to(room),
        pytest.raises(EqkernelError, match="cannot write .*net.safetensors: .*nothing was changed"),
    ):
        net.save(path)
    assert_untouched(path, old, net, before)
    net.save(path)  # and with room again it is written
    np.testing.assert_array_equal(Network.load(path).buffer, before)


@pytest.mark.parametrize("moment", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failure_at_any_moment_leaves_the_old_file(saved, monkeypatch, moment, code):
    path, _, _ = saved
    old, net = path.read_bytes(), Network.dense(6, 9, 3)
    before = net.buffer.copy()

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    def fail_halfway(self, data):
        with open(self, "wb") as handle:
            handle.write(data[: len(data) // 2])
        fail()

    match moment:
        case "open":
            monkeypatch.setattr("eqkernel.weightfile.NamedTemporaryFile", fail)
        case "write":
            monkeypatch.setattr(Path, "write_bytes", fail_halfway)
        case "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        case "replace":
            monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(EqkernelError, match=f"cannot write .*: {os.strerror(code)}; nothing was changed"):
        net.save(path)
    monkeypatch.undo()
    assert_untouched(path, old, net, before)


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    path, _, _ = saved
    old, net = path.read_bytes(), Network.dense(6, 9, 3)

    def interrupt(self, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        net.save(path)
    assert_untouched(path, old, net, net.buffer.copy())


def test_an_unwritable_folder_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    path = folder / "net"
    net = Network.dense(6, 8, 3)
    net.save(path)
    old = path.read_bytes()
    tmp_path.chmod(0o755)
    folder.chmod(0o555)
    try:
        with without_privileges(), pytest.raises(EqkernelError, match="cannot write .*Permission denied"):
            Network.dense(6, 9, 3).save(path)
    finally:
        folder.chmod(0o755)
    assert_untouched(path, old, net, net.buffer.copy())


def test_a_missing_folder_a_file_as_folder_and_a_folder_as_file_are_refused(saved, tmp_path):
    path, _, _ = saved
    old, net = path.read_bytes(), Network.dense(6, 9, 3)
    with pytest.raises(EqkernelError, match="cannot write .*No such file or directory"):
        net.save(tmp_path / "missing" / "net")
    with pytest.raises(EqkernelError, match="cannot write .*Not a directory"):
        net.save(path / "net")
    assert_untouched(path, old, net, net.buffer.copy())
    (tmp_path / "folder").mkdir()
    with pytest.raises(EqkernelError, match="cannot write"):
        net.save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "net.safetensors"]


def test_a_link_stays_a_link_and_its_target_is_written(saved, tmp_path):
    path, _, _ = saved
    net = Network.dense(6, 9, 3)
    for target in (path, tmp_path / "new"):  # there, and not yet there
        link = tmp_path / f"latest-{target.name}"
        link.symlink_to(target.name)
        net.save(link)
        assert link.is_symlink() and not target.is_symlink()
        np.testing.assert_array_equal(Network.load(target).buffer, net.buffer)


def test_a_file_is_written_beside_the_one_that_it_replaces(tmp_path):
    """On another disk it could not take its place in one move."""
    with replacing(tmp_path / "net") as temporary:
        assert temporary.parent == tmp_path


def test_what_is_no_file_is_not_replaced(tmp_path):
    net, fifo, loop = Network.dense(6, 8, 3), tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to("loop")
    for path in (fifo, loop, tmp_path, "", None, 7, tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(EqkernelError, match="cannot write"):
            net.save(path)
    assert fifo.is_fifo() and loop.is_symlink()
    assert sorted(tmp_path.iterdir()) == [fifo, loop]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_could_not_be_loaded_is_not_saved(saved, bad):
    path, _, _ = saved
    old, net = path.read_bytes(), Network.dense(6, 8, 3)
    net.parameters[2][1, 1] = bad
    with pytest.raises(EqkernelError, match="cannot save the network: dense.1-2 holds a NaN or an infinity"):
        net.save(path)
    assert_untouched(path, old, net, net.buffer.copy())
