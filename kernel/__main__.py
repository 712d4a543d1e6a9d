"""python -m eqkernel: the command line."""

from .cli import main

main(prog_name="eqkernel")
