"""Certified training by SABR on MNIST, Linf eps 0.1, conv16-conv32-fc100: small boxes around attacks.

    python experiments/train.py --config=configs/mnist_sabr.py --workdir=runs/mnist_sabr
    python experiments/evaluate.py --config=configs/mnist_sabr.py --workdir=runs/mnist_sabr

tau, start, regularisers and L1 as Mueller et al. 2023 have them for eps 0.1; their attack is 8 steps, the last ones ten
and a hundred times smaller, their net a CNN7, their length 70 epochs.
The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_ibp, mnist_mtl_ibp
from robustgen.attacks import cross_entropy, pgd
from robustgen.losses import sabr


def get_config(eps: float | str = 0.1) -> fdl.Config:
    config = mnist_mtl_ibp.prepared(eps)
    threat = mnist_ibp.rising(config)
    step_size = mnist_ibp.ramped(0.0, config.evaluation.threat.eps / 2)
    attack = fdl.Config(pgd, threat, objective=cross_entropy, step_size=step_size, num_steps=3)
    loss = fdl.Config(sabr, threat, attack, tau=0.4, kappa=0.0)
    config.loss = mnist_mtl_ibp.regularized(loss, config)
    return config
