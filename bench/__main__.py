"""`python -m bench`: the same as `python -m bench.table`."""

from .table import main

if __name__ == "__main__":
    main()
