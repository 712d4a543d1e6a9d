"""The example in C compiles without a warning, learns, and leaves the sanitizers silent."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bindings"
CC = shutil.which("cc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off", f"-I{ROOT / 'include'}"]
pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


@pytest.mark.parametrize(
    "flags",
    [["-O1"], ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]],
    ids=["plain", "sanitizers"],
)
def test_the_example_compiles_strictly_and_learns(flags, tmp_path):
    program = tmp_path / "train"
    sources = [ROOT / "examples/train.c", *sorted((ROOT / "src").glob("*.c"))]
    if len(flags) > 1:
        probe = subprocess.run(
            [CC, *flags, "-xc", "-", "-o", program], input=b"int main(void){return 0;}", capture_output=True
        )
        if probe.returncode:
            pytest.skip("this compiler has no sanitizers")
    built = subprocess.run([CC, *STRICT, *flags, *sources, "-lm", "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 right" in done.stdout and not done.stderr
