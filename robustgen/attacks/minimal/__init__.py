"""Minimal-norm attacks: `(logits_fn, x, y, key) -> x_adv`, misclassified and as near to x as was found.

They minimise a distance, where an `Attack` maximises an objective within a set: one run tells the accuracy at every
radius (`evaluation.distances`), as an upper bound.
"""

from robustgen.attacks.minimal import norms as norms
from robustgen.attacks.minimal.cw import cw_l2 as cw_l2
from robustgen.attacks.minimal.ddn import ddn as ddn
from robustgen.attacks.minimal.deepfool import deepfool as deepfool
from robustgen.attacks.minimal.fmn import fmn as fmn
from robustgen.attacks.minimal.search import MinimalAttack as MinimalAttack
from robustgen.attacks.minimal.search import clean as clean
from robustgen.attacks.minimal.search import distances as distances
from robustgen.attacks.minimal.sigma_zero import sigma_zero as sigma_zero
