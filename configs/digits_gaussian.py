"""Gaussian augmentation for randomized smoothing on scikit-learn's digits, sigma 0.25 of pixels in [0, 1].

    python experiments/smoothing.py --config=configs/digits_gaussian.py --workdir=runs/digits_gaussian

The full length has not been run yet.
"""

import fiddle as fdl

from configs import digits_standard
from robustgen.losses.smoothing import gaussian
from robustgen.threats import l2


def get_config(*, sigma: float = 0.25) -> fdl.Config:
    config = digits_standard.get_config()
    config.training.num_epochs = 150
    config.evaluation.threat = fdl.Config(l2, eps=0.5)
    config.evaluation.curve = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
    config.loss = fdl.Config(gaussian, sigma=sigma)
    return config
