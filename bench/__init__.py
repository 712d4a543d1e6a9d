"""Benchmarks: eqkernel beside the strongest code a good user would write, verified first and timed second."""
