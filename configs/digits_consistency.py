"""Consistency regularisation for randomized smoothing on scikit-learn's digits.

    python experiments/smoothing.py --config=configs/digits_consistency.py --workdir=runs/digits_consistency

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_gaussian
from robustgen.losses.smoothing import consistency


def get_config(*, sigma: float = 0.25) -> fdl.Config:
    config = digits_gaussian.get_config()
    config.loss = fdl.Config(consistency, sigma=sigma, num_noise=2, weight=10.0, eta=0.5)
    return config
