"""SmoothAdv for randomized smoothing on scikit-learn's digits: PGD-4 in an L2 ball of 0.5 on the smoothed classifier.

    python experiments/smoothing.py --config=configs/digits_smoothadv.py --workdir=runs/digits_smoothadv

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_gaussian
from robustgen.attacks import cross_entropy, pgd
from robustgen.attacks.starts import zero
from robustgen.losses.smoothing import smoothadv
from robustgen.schedules import ramp
from robustgen.threats import l2


def get_config(*, sigma: float = 0.25) -> fdl.Config:
    config = digits_gaussian.get_config()
    eps, num_steps = config.evaluation.threat.eps, 4
    threat = fdl.Config(l2, eps=fdl.Config(ramp, 0.0, eps, begin=0.0, length=0.1))
    step_size = fdl.Config(ramp, 0.0, 2 * eps / num_steps, begin=0.0, length=0.1)
    attack = fdl.Config(
        pgd, threat, objective=cross_entropy, step_size=step_size, num_steps=num_steps, start=zero
    )
    config.loss = fdl.Config(smoothadv, attack, sigma=sigma, num_noise=4)
    return config
