"""Attacks: `(logits_fn, x, target, key) -> x_adv`."""

from robustgen.attacks import starts as starts
from robustgen.attacks.combine import over_eps as over_eps
from robustgen.attacks.combine import restarts as restarts
from robustgen.attacks.combine import worst_of as worst_of
from robustgen.attacks.objectives import cross_entropy as cross_entropy
from robustgen.attacks.objectives import kl as kl
from robustgen.attacks.objectives import margin as margin
from robustgen.attacks.pgd import fgsm as fgsm
from robustgen.attacks.pgd import pgd as pgd
from robustgen.attacks.pgd import r_fgsm as r_fgsm
from robustgen.attacks.scaled import scaled_pgd as scaled_pgd
from robustgen.attacks.spatial import spatial as spatial
from robustgen.attacks.spatial import spatial_random as spatial_random
