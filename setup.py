from setuptools import setup

# Everything else is in pyproject.toml. One wheel serves every Python from 3.11 on.
setup(cffi_modules=["bindings/build.py:ffi"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
