"""Of the cycle over all grids, in torch and as compiled loops.

What was compiled is kept with these numbers in it: after a change of one, touch ``compiled.py``.
"""

#: Steps of the two sweeps: from the roots of the Chebyshev polynomial for eigenvalues from 2/3 to 4/3,
#: which belong to what the coarser grid cannot show.
STEPS = (1.309, 0.809)
#: Pairs of sweeps on the coarsest grid, of at most that many cells along each axis.
LAST_SWEEPS, LAST_CELLS = 6, 4
#: Iterations; five to eight are usual.
MOST = 60
