import os
from concurrent.futures import ThreadPoolExecutor

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildSideBySide(build_ext):
    """Compiles the sources of an extension side by side: one after another they take minutes."""

    def build_extension(self, ext):
        compile_all = self.compiler.compile

        def side_by_side(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda source: compile_all([source], **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = side_by_side
        super().build_extension(ext)


# Everything else is in pyproject.toml. One wheel serves every Python from 3.11 on.
setup(
    cffi_modules=["bindings/build.py:ffi"],
    cmdclass={"build_ext": BuildSideBySide},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
