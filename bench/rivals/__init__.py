"""What a good user would write without eqkernel: one idea a file, every one solving a
`bench.problem.Problem`.
"""
