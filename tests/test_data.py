"""Data sets read small files made here; every bad file is refused by one error that names it."""

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from eqkernel import data, datafiles
from eqkernel.errors import EqkernelError

NAMES = datafiles.IDX


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No variable of the user's, an empty cache, and a network that is down."""
    monkeypatch.delenv("EQKERNEL_DATA", raising=False)
    monkeypatch.setattr(datafiles.pooch, "os_cache", lambda _: tmp_path / "cache")

    def unreachable(url, known_hash, **_):
        raise OSError(f"no route to {url}")

    monkeypatch.setattr(datafiles.pooch, "retrieve", unreachable)


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def write_idx(folder, *, n=6, compress=True, seed=0, **replace):
    """Four IDX files of 4x3 images; returns the arrays. `replace` gives another array for position _0.._3."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 256, (n, 4, 3), np.uint8),
        rng.integers(0, 10, n, np.uint8),
        rng.integers(0, 256, (2, 4, 3), np.uint8),
        rng.integers(0, 10, 2, np.uint8),
    ]
    for key, array in replace.items():
        arrays[int(key[1:])] = array
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, arrays, strict=True):
        raw = idx_bytes(array)
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(raw) if compress else raw)
    return arrays


def write_batches(folder, per_file=2):
    """Six small CIFAR-10 Python batches with the originals' keys; returns all images and labels in order."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    images = rng.integers(0, 256, (6 * per_file, 3072), np.uint8)
    labels = rng.integers(0, 10, 6 * per_file).tolist()
    for i, name in enumerate(datafiles.CIFAR10.layouts[1]):
        part = slice(i * per_file, (i + 1) * per_file)
        batch = {b"data": images[part], b"labels": labels[part]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return images, np.array(labels)


def write_jpegs(path, colours, **replace):
    """An npz of 32x32 JPEGs of one colour each, labelled 0, 1, ..."""
    files = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(buffer, "jpeg", quality=95)
        files.append(buffer.getvalue())
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.arange(len(files), dtype=np.uint8),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays | replace))


def test_digits_are_split_by_class_and_never_share_an_image():
    x, y, x_test, y_test = data.load_digits()
    assert (x.shape, x_test.shape) == ((1442, 64), (355, 64))
    assert x.dtype == x_test.dtype == np.float32 and y.dtype == y_test.dtype == np.int64
    assert x.min() == 0 and x.max() == 1
    share = np.bincount(y_test) / np.bincount(np.concatenate([y, y_test]))
    assert len(share) == 10 and (abs(share - 0.2) < 0.005).all()
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in x_test}
    again = data.load_digits()
    assert all((a == b).all() for a, b in zip((x, y, x_test, y_test), again, strict=True))


@pytest.mark.parametrize("place", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_become_rows_in_the_unit_interval(tmp_path, place, compress):
    images, labels, test_images, test_labels = write_idx(tmp_path / place, compress=compress)
    x, y, x_test, y_test = data.load_fashion_mnist(tmp_path)
    assert x.dtype == np.float32 and y.dtype == np.int64
    np.testing.assert_array_equal(x, images.reshape(-1, 12) / np.float32(255))
    np.testing.assert_array_equal(x_test, test_images.reshape(-1, 12) / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(y_test, test_labels)


def test_the_folder_passed_comes_before_the_variable(tmp_path, monkeypatch):
    passed = write_idx(tmp_path / "passed", seed=1)
    variable = write_idx(tmp_path / "variable" / "mnist", seed=2)
    monkeypatch.setenv("EQKERNEL_DATA", str(tmp_path / "variable"))
    assert (data.load_mnist(tmp_path / "passed", verify=False)[1] == passed[1]).all()
    assert (data.load_mnist(verify=False)[1] == variable[1]).all()


def test_what_is_nowhere_is_downloaded_with_its_published_checksum(tmp_path, monkeypatch):
    write_idx(tmp_path / "server")
    asked = []

    def retrieve(url, known_hash, fname, **_):
        asked.append((url, known_hash))
        return str(tmp_path / "server" / fname)

    monkeypatch.setattr(datafiles.pooch, "retrieve", retrieve)
    monkeypatch.setenv("EQKERNEL_DATA", str(tmp_path))  # there, but without this set
    assert data.load_fashion_mnist()[0].shape == (6, 12)
    assert [url.rsplit("/", 1)[1] for url, _ in asked] == [f"{name}.gz" for name in NAMES]
    assert asked[0][1] == "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"


def test_a_failed_download_names_the_places_and_the_fix(tmp_path, monkeypatch):
    monkeypatch.setenv("EQKERNEL_DATA", str(tmp_path))
    with pytest.raises(EqkernelError, match=r"Fashion-MNIST is not in .*train-images.*no route.*--data DIR"):
        data.load_fashion_mnist()


def test_a_folder_without_the_set_is_an_error_and_no_download(tmp_path, monkeypatch):
    monkeypatch.setattr(datafiles.pooch, "retrieve", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(EqkernelError, match=r"MNIST is not in .*train-images-idx3.*put them there"):
        data.load_mnist(tmp_path)
    with pytest.raises(EqkernelError, match="data folder '.*nowhere' is not a folder"):
        data.load_mnist(tmp_path / "nowhere")
    monkeypatch.setenv("EQKERNEL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(EqkernelError, match="EQKERNEL_DATA '.*nowhere' is not a folder"):
        data.load_mnist()


def test_an_incomplete_set_is_not_a_set(tmp_path):
    write_idx(tmp_path)
    (tmp_path / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(EqkernelError, match="is not in"):
        data.load_fashion_mnist(tmp_path)


def test_mnist_is_recognised_by_its_content(tmp_path, monkeypatch):
    write_idx(tmp_path)
    with pytest.raises(EqkernelError, match=r"train-images.*not MNIST's original.*MD5"):
        data.load_mnist(tmp_path)
    content = [gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) for name in NAMES]
    monkeypatch.setattr(datafiles, "MNIST_CONTENT", tuple(hashlib.md5(raw).hexdigest() for raw in content))
    assert data.load_mnist(tmp_path)[0].shape == (6, 12)
    with pytest.raises(EqkernelError, match=r"train-images.* is MNIST's"):
        data.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("position", range(4))
def test_a_truncated_gzip_file_is_named(tmp_path, position):
    write_idx(tmp_path)
    path = tmp_path / f"{NAMES[position]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(EqkernelError, match=f"{NAMES[position]}.*truncated"):
        data.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("keep", [4, 6, 16, 50])
def test_truncated_idx_bytes_are_named(tmp_path, keep):
    write_idx(tmp_path, compress=False)
    path = tmp_path / NAMES[2]
    path.write_bytes(path.read_bytes()[:keep] if keep < 16 + 24 else path.read_bytes() + b"more")
    with pytest.raises(EqkernelError, match=f"{NAMES[2]} is .* bytes long, its header asks for"):
        data.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("foreign", [b"", b"<html>not found</html>", bytes((0, 0, 13, 3)) + bytes(12)])
def test_foreign_files_are_named(tmp_path, foreign):
    write_idx(tmp_path)
    path = tmp_path / f"{NAMES[0]}.gz"
    path.write_bytes(gzip.compress(foreign))
    with pytest.raises(EqkernelError, match=f"{NAMES[0]}.gz is no IDX file of rank 3"):
        data.load_fashion_mnist(tmp_path)
    path.write_bytes(b"\x89PNG" + foreign)
    with pytest.raises(EqkernelError, match=f"{NAMES[0]}.gz is truncated or not a gzip file"):
        data.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"_0": np.zeros(6, np.uint8)}, "train-images.*rank 3"),  # labels where images belong
        ({"_1": np.zeros(5, np.uint8)}, "5 labels for 6 images"),
        ({"_1": np.full(6, 10, np.uint8)}, "the label 10"),
        ({"_2": np.zeros((2, 3, 4), np.uint8)}, r"t10k-images.*\(3, 4\).*\(4, 3\)"),
        ({"_2": np.zeros((0, 4, 3), np.uint8), "_3": np.zeros(0, np.uint8)}, "0 labels for 0 images"),
    ],
)
def test_idx_files_that_do_not_fit_each_other_are_refused(tmp_path, replace, message):
    write_idx(tmp_path, **replace)
    with pytest.raises(EqkernelError, match=message):
        data.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("archived", [False, True])
def test_cifar_batches_are_read_as_files_or_from_their_archive(tmp_path, archived):
    folder = tmp_path / "cifar-10-batches-py"
    images, labels = write_batches(folder)
    if archived:
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        for file in folder.iterdir():
            file.unlink()
    x, y, x_test, y_test = data.load_cifar10(tmp_path)
    np.testing.assert_array_equal(np.concatenate([x, x_test]), images / np.float32(255))
    np.testing.assert_array_equal(np.concatenate([y, y_test]), labels)
    assert len(x_test) == 2


def test_a_truncated_or_foreign_cifar_archive_is_named(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_batches(tmp_path / "elsewhere")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "elsewhere", "cifar-10-batches-py")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>"):
        path.write_bytes(content)
        with pytest.raises(EqkernelError, match=r"cifar-10-python\.tar\.gz.* is truncated or not CIFAR-10's"):
            data.load_cifar10(tmp_path)


@pytest.mark.parametrize(
    "replace",
    [{b"labels": [0]}, {b"labels": [0, 10]}, {b"data": np.zeros((2, 3), np.uint8)}, {b"data": None}],
)
def test_cifar_batches_of_other_content_are_refused(tmp_path, replace):
    write_batches(tmp_path / "cifar10")
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]} | replace
    (tmp_path / "cifar10" / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(EqkernelError, match="data_batch_3 is truncated or no CIFAR-10 batch"):
        data.load_cifar10(tmp_path)


class Command:
    """A pickle of this runs code when it is loaded carelessly."""

    def __reduce__(self):
        return print, ("a data file ran code",)


def test_cifar_files_cannot_run_code(tmp_path, capsys):
    write_batches(tmp_path / "cifar10")
    batch = pickle.dumps({b"data": Command(), b"labels": []}, protocol=2)
    (tmp_path / "cifar10" / "test_batch").write_bytes(batch)
    with pytest.raises(EqkernelError, match=r"test_batch.*print is not allowed"):
        data.load_cifar10(tmp_path)
    write_jpegs(tmp_path / "jpeg" / "train_jpeg.npz", ["red"], label=np.array([Command()]))
    write_jpegs(tmp_path / "jpeg" / "test_jpeg.npz", ["red"])
    with pytest.raises(EqkernelError, match=r"train_jpeg.*allow_pickle"):
        data.load_cifar10(tmp_path / "jpeg")
    assert capsys.readouterr().out == ""


def test_jpegs_keep_colour_row_and_column_in_order(tmp_path):
    write_jpegs(tmp_path / "train_jpeg.npz", [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    write_jpegs(tmp_path / "test_jpeg.npz", [(255, 255, 255)])
    x, y, x_test, _ = data.load_cifar10(tmp_path)
    means = x.reshape(3, 3, 32, 32).mean(axis=(2, 3))
    np.testing.assert_allclose(means, np.eye(3), atol=0.02)  # JPEG is lossy
    assert y.tolist() == [0, 1, 2] and x_test.mean() > 0.98


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(b"PK\x03\x04 nothing"),
        lambda path: np.savez(path, jpeg=np.zeros(10, np.uint8)),
        lambda path: write_jpegs(path, ["red", "blue"], label=np.array([0, 11])),
        lambda path: write_jpegs(path, ["red", "blue"], label=np.array([0])),
        lambda path: write_jpegs(path, ["red", "blue"], jpeg=np.zeros(2000, np.uint8)),
    ],
    ids=["truncated", "foreign", "arrays missing", "label 11", "one label", "no JPEG"],
)
def test_bad_jpeg_sets_are_named(tmp_path, damage):
    write_jpegs(tmp_path / "train_jpeg.npz", ["red", "blue"])
    write_jpegs(tmp_path / "test_jpeg.npz", ["red"])
    damage(tmp_path / "train_jpeg.npz")
    with pytest.raises(EqkernelError, match=r"train_jpeg\.npz is truncated or no set of JPEGs"):
        data.load_cifar10(tmp_path)


def test_batches_hold_every_row_once_and_follow_the_seed():
    x, y = np.arange(10)[:, None], np.arange(10)
    parts = list(data.batches(x, y, 4, seed=3))
    assert [len(part[0]) for part in parts] == [4, 4, 2]
    assert all((part_x[:, 0] == part_y).all() for part_x, part_y in parts)
    order = np.concatenate([part_y for _, part_y in parts])
    assert sorted(order) == list(range(10)) and order.tolist() != list(range(10))
    assert (order == np.concatenate([part_y for _, part_y in data.batches(x, y, 4, seed=3)])).all()
    assert (order != np.concatenate([part_y for _, part_y in data.batches(x, y, 4, seed=4)])).any()
    assert [len(part[0]) for part in data.batches(x, y, 4, seed=3, drop_last=True)] == [4, 4]
    assert np.concatenate([part_y for _, part_y in data.batches(x, y, 4, None)]).tolist() == list(range(10))


def test_batches_refuse_bad_arguments_at_the_call():
    with pytest.raises(EqkernelError, match="3 rows and y has 2"):
        data.batches(np.zeros((3, 1)), np.zeros(2), 1, seed=0)
    for size in (0, 2.5, "2", None):
        with pytest.raises(EqkernelError, match=f"batch size is {size!r}: it must be a whole number"):
            data.batches(np.zeros((3, 1)), np.zeros(3), size, seed=0)
    for seed in (-1, 0.5, "a"):
        for call in (data.batches, data.validation_split):
            with pytest.raises(EqkernelError, match="seed must be a whole number of at least 0"):
                call(np.zeros((3, 1)), np.zeros(3), **({"size": 1} if call is data.batches else {}), seed=seed)
    with pytest.raises(EqkernelError, match="x and y must have rows"):
        data.batches(3, 4, 1, seed=0)
    with pytest.raises(EqkernelError, match="x cannot be read as an array"):
        data.batches([[1, 2], [1]], [0, 1], 1, seed=0)


def test_lists_are_batched_and_split_as_arrays_are():
    x, y = np.arange(20)[:, None] / 20, np.arange(20) % 2
    for ours, theirs in zip(data.batches(x.tolist(), y.tolist(), 7, 3), data.batches(x, y, 7, 3), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(data.validation_split(x.tolist(), y.tolist()), data.validation_split(x, y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_validation_split_needs_a_label_for_every_row():
    with pytest.raises(EqkernelError, match="x has 4 rows and y has 3"):
        data.validation_split(np.zeros((4, 1)), np.zeros(3))
    with pytest.raises(EqkernelError, match=r"takes labels \(n,\), not y of shape \(4, 2\)"):
        data.validation_split(np.zeros((4, 1)), np.zeros((4, 2)))
    with pytest.raises(EqkernelError, match="between 0 and 1"):
        data.validation_split(np.zeros((4, 1)), np.zeros(4), "0.1")


def test_validation_split_takes_the_fraction_of_each_class():
    y = np.repeat([0, 1, 2], [10, 20, 40])
    x = np.arange(70)[:, None]
    x_train, y_train, x_held, y_held = data.validation_split(x, y, 0.2, seed=1)
    assert np.bincount(y_held).tolist() == [2, 4, 8] and np.bincount(y_train).tolist() == [8, 16, 32]
    assert sorted(np.concatenate([x_train, x_held])[:, 0]) == list(range(70))
    assert (y[x_held[:, 0]] == y_held).all() and (y[x_train[:, 0]] == y_train).all()
    assert (x_held != data.validation_split(x, y, 0.2, seed=2)[2]).any()
    for fraction in (0, 1, -0.1):
        with pytest.raises(EqkernelError, match="between 0 and 1"):
            data.validation_split(x, y, fraction)
    with pytest.raises(EqkernelError, match="too few"):
        data.validation_split(x[:2], y[:2], 0.01)
    with pytest.raises(EqkernelError, match="too few"):
        data.validation_split(np.zeros((3, 1)), np.arange(3), 0.9)


def test_clusters_are_told_apart_by_their_means_and_rings_are_not():
    def by_mean(x, y):
        means = np.stack([x[y == k].mean(axis=0) for k in range(3)])
        return (np.linalg.norm(x[:, None] - means, axis=2).argmin(axis=1) == y).mean()

    for x, y in (data.gaussian_clusters(300, 20, 3, seed=0), data.rings(300, 3, seed=0)):
        assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
        assert np.bincount(y).tolist() == [100, 100, 100]
    assert by_mean(*data.gaussian_clusters(300, 20, 3, seed=0)) > 0.99
    x, y = data.rings(300, 3, seed=0)
    assert by_mean(x, y) < 0.6
    radius = np.linalg.norm(x - 0.5, axis=1)
    assert (np.rint(radius / 0.15).astype(int) - 1 == y).mean() > 0.99


def test_noise_is_what_spreads_clusters_and_rings():
    x, _ = data.gaussian_clusters(300, 20, 3, seed=0, noise=0.0)
    assert len(np.unique(x, axis=0)) == 3
    x, y = data.rings(300, 3, seed=0, noise=0.0)
    np.testing.assert_allclose(np.linalg.norm(x - 0.5, axis=1), 0.15 * (y + 1), atol=1e-6)


def test_pictures_of_floats_and_numbers_below_0_are_no_images(tmp_path):
    Image.fromarray(np.full((8, 8), 3000.0, np.float32)).save(tmp_path / "deep.tiff")
    np.save(tmp_path / "dark.npy", np.full(64, -1.0))
    for name, message in (("deep.tiff", "mode F, not bytes"), ("dark.npy", "numbers from -1")):
        with pytest.raises(EqkernelError, match=message):
            datafiles.read_image(tmp_path / name, 64)
