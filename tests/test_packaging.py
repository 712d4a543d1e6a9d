"""What installs is whole and clean, carries one version, and is never imported by its folder's name."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import eqkernel

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BINDINGS = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "bindings").rglob("*")
    if path.is_file() and not path.name.startswith("_eqkernel") and "__pycache__" not in path.parts
}
MODULES = {
    path.relative_to(ROOT / "kernel").as_posix()
    for kind in ("*.py", "*.cu", "*.cuh", "*.safetensors")
    for path in (ROOT / "kernel").rglob(kind)
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """(wheel, sdist) built from a copy of the sources, the wheel out of the unpacked sdist; quickly, not optimised."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("building needs setuptools 77 or newer: pip install 'eqkernel[test]'")
    copy = tmp_path_factory.mktemp("sources")
    for name in ("kernel", "bindings", "tests", "docs", "bench"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_eqkernel*"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    dist = copy / "dist"
    build = "import setuptools.build_meta as b, sys; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
    for kind, folder in (("sdist", copy), ("wheel", None)):
        if kind == "wheel":
            (sdist,) = dist.glob("*.tar.gz")
            with tarfile.open(sdist) as archive:
                archive.extractall(copy / "unpacked", filter="data")
            (folder,) = (copy / "unpacked").iterdir()
        dist.mkdir(exist_ok=True)
        command = [sys.executable, "-c", build, kind, str(dist)]
        environment = {**os.environ, "EQKERNEL_CFLAGS": "-O0"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_every_module_and_nothing_else(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        built = {name for name in names if name.startswith("eqkernel/bindings/_eqkernel")}
        (entry,) = (wheel.read(name) for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert names - built == {f"eqkernel/{module}" for module in MODULES | BINDINGS} | {"eqkernel/py.typed"}
    assert bool(built) is (shutil.which("cc") is not None)
    assert "-cp311-abi3-" in archives[0].name
    assert b"eqkernel = eqkernel.cli:main" in entry


def test_flags_of_the_environment_come_last(monkeypatch):
    monkeypatch.setenv("EQKERNEL_CFLAGS", "-O0 -DNAME='two words'")
    *_, options = runpy.run_path(str(ROOT / "bindings/build.py"))["ffi"]._assigned_source
    assert options["extra_compile_args"][-2:] == ["-O0", "-DNAME=two words"]


def test_the_sdist_holds_what_a_packager_needs(archives):
    with tarfile.open(archives[1]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {f"kernel/{module}" for module in MODULES} | BINDINGS <= names
    assert {"LICENSE", "CITATION.cff", "Makefile", "pyproject.toml", "tests/test_packaging.py"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py")} <= names
    assert {f"tests/shim/{name}" for name in ("shim.h", "shared.ld", "runtime.cpp", "checker.cpp")} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".nbi", ".nbc", ".pyc"))]


def test_the_wheel_imports_without_a_warning_and_without_the_sources(archives, tmp_path):
    with zipfile.ZipFile(archives[0]) as wheel:
        wheel.extractall(tmp_path / "site")
    code = "import eqkernel, eqkernel.cli, eqkernel.reference, eqkernel.cpu, eqkernel.cuda; print(eqkernel.__file__)"
    result = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path)


def test_an_install_without_a_compiler_succeeds_and_lacks_only_this_backend(archives, tmp_path):
    sdist = archives[1]
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build = "import setuptools.build_meta as b; b.build_wheel('dist')"
    (source / "dist").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        env={**os.environ, "CC": "/nowhere/cc"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(*source.glob("dist/*.whl")) as wheel:
        wheel.extractall(tmp_path / "site")
    assert not list((tmp_path / "site").rglob("*.so"))
    code = (
        "import eqkernel; from eqkernel.backends import BACKENDS, unavailable;"
        "print(eqkernel.__file__); print(eqkernel.Network.dense(2, 3, 2).backend);"
        "print(*[n for n in BACKENDS if unavailable(n)]); print(unavailable('c'))"
    )
    # -S: without it the editable install would lend its extension.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), sysconfig.get_path("purelib")])}
    result = subprocess.run([sys.executable, "-S", "-P", "-c", code], env=environment, capture_output=True, text=True)
    place, chosen, missing, why = result.stdout.splitlines()
    assert place.startswith(str(tmp_path)) and chosen == "cpu" and set(missing.split()) - {"cuda"} == {"c"}
    assert "was not built" in why and "install a C compiler and reinstall eqkernel" in why


def test_there_is_one_version():
    expected = PROJECT["project"]["version"]
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert eqkernel.__version__ == expected == citation[1]


def test_importing_the_package_pulls_in_no_plotting_and_no_command_line():
    heavy = {"matplotlib", "rich", "click", "sklearn", "pooch"}
    code = f"import sys, eqkernel; print(*{heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("folder", ["kernel", "tests", "bench"])
def test_nothing_imports_the_package_by_its_folder_name(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            banned = {"kernel", "eqkernel"} if folder == "kernel" else {"kernel"}  # inside, relative imports
            assert not banned & {name.split(".")[0] for name in names}, f"{path}, line {node.lineno}"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_names_the_python_it_needs(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")  # what an older Python answers when asked for its version
    old.chmod(0o755)
    command, environment = ["make", "demo", f"PYTHON={old}"], {"PATH": os.environ["PATH"]}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Python 3.11 or newer" in result.stderr and str(old) in result.stderr
    assert not (tmp_path / ".venv").exists()
