"""The benchmark for a GPU runs, verifies and writes, on small sizes in the stand-in; and refuses to time nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import shim

ROOT = Path(__file__).parent.parent


def bench(*arguments, **environment):
    command = [sys.executable, "-m", "bench.gpu", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


@shim.shim_only
def test_a_dry_run_writes_every_row(tmp_path):
    done = bench("--dry-run", "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["card"] == "CPU stand-in" and set(found["roofs"]) == {"float32 flops", "bytes"}
    rows = {(row["net"], row["contestant"]): row for row in found["rows"]}
    assert all(row["seconds"] > 0 for row in rows.values())
    same = rows["20-24-24-5", "eqkernel, the same steps"], rows["20-24-24-5", "numpy eager"]
    assert min(row["cosine"] for row in same) > 0.999
    assert ("20-24-24-5", "eqkernel settle, converged, bf16") in rows
    assert ("20-24-5", "eqkernel settle, converged, recorded") in rows
    assert {net for net, _ in rows} == {"20-24-5", "20-24-24-5", "conv 16-32", "field 40 x 40"}


def test_without_a_gpu_it_says_so(tmp_path):
    done = bench("--out", tmp_path / "gpu.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "no GPU to measure" in done.stderr
    assert not list(tmp_path.iterdir())
