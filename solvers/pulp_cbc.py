"""`pulp`: the peers' way, PuLP binaries handed to CBC, here with scaled losses and a bound that CBC has no part in.

CBC prints 'Optimal' over answers that its absolute tolerances allow (research/05 section 2), so its word is not taken
as a proof: the certificate states the gap to the Lagrangian bound of the multipliers of `vector`. PuLP builds models
without looking at the clock, so it does that in a child process.
"""

from __future__ import annotations

import numpy as np

from solvers import cbc, child
from solvers.base import Deadline, Outcome, Solver
from solvers.external import Backend, by_child, outside
from solvers.highs import model_of
from solvers.reduce import Reduced


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: `cbc.run`."""
    model = model_of(arrays)
    found = cbc.run(model, seconds=float(arrays["seconds"]))
    status = np.array(found.status)
    return {"status": status} if found.x is None else {"status": status, "x": found.x}


def pulp_cbc(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits and rules. The plan is that of `vector` where CBC has none in time, or one that breaks a row."""
    return outside(reduced, deadline, seed, Backend("cbc", by_child("solvers.pulp_cbc:answer")))


SOLVER = Solver("pulp", pulp_cbc)
