"""How often the intervals of `lossatlas.analysis` hold the truth, in simulated studies whose truth is known.

    python benchmarks/coverage.py --out results/statistics/coverage.csv

Simulates 2,000 studies of every design (see `lossatlas.analysis.coverage`); designs that the file has already are
kept, so that an interrupted run goes on where it was.
"""

import os

# a process a core: several threads in each would only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

from lossatlas.analysis.coverage import main

if __name__ == "__main__":
    main()
