"""Constants of the multigrid cycle, shared by `multigrid` and `compiled`.

Numba caches compiled code with these values inlined: after a change of one, touch ``compiled.py``.
"""

#: Weights of the two Jacobi sweeps: from the roots of the Chebyshev polynomial for eigenvalues from 2/3
#: to 4/3, those of components that the coarser grid cannot represent.
STEPS = (1.309, 0.809)
#: Pairs of sweeps on the coarsest grid, and its maximum number of cells along each axis.
LAST_SWEEPS, LAST_CELLS = 6, 4
#: Limit on the iterations of conjugate gradients; five to eight are usual.
MAX_ITERATIONS = 60
