"""Certified training by CROWN-IBP on scikit-learn's digits: linear bounds while the radius rises, intervals after.

    python experiments/train.py --config=configs/digits_crown_ibp.py --workdir=runs/digits_crown_ibp
    python experiments/evaluate.py --config=configs/digits_crown_ibp.py --workdir=runs/digits_crown_ibp

Measured by `experiments/pareto.py --methods=crown_ibp --sweep=loss.kappa.end=0.5`: means of 3 seeds on 500 test images
(2 CPU cores, jax 0.12): clean 97.3 [95.4, 98.4] %, robust 80.7 [77.0, 84.0] % under PGD-50x3, certified 73.9 [69.8,
77.5] % by IBP. Rate, ramps, length and kappa are those of digits_ibp, whose bounds are as good on this small net.
"""

import fiddle as fdl

from configs import digits_ibp
from robustgen.losses import crown_ibp


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    kappa, beta = digits_ibp.ramped(1.0, 0.5), digits_ibp.ramped(1.0, 0.0)
    config.loss = fdl.Config(crown_ibp, digits_ibp.rising(config), kappa=kappa, beta=beta)
    return config
