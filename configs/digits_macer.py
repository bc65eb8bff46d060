"""MACER for randomized smoothing on scikit-learn's digits: certified radii of soft votes are maximised.

    python experiments/smoothing.py --config=configs/digits_macer.py --workdir=runs/digits_macer

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_gaussian
from robustgen.losses.smoothing import macer


def get_config(*, sigma: float = 0.25) -> fdl.Config:
    config = digits_gaussian.get_config()
    config.loss = fdl.Config(macer, sigma=sigma, num_noise=16, weight=12.0, hinge=8.0, inverse_temperature=16.0)
    return config
