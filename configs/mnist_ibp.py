"""Certified training by interval bounds on MNIST, Linf eps 0.3, conv16-conv32-fc100; eps and kappa ramp.

    python experiments/train.py --config=configs/mnist_ibp.py --workdir=runs/mnist_ibp
    python experiments/evaluate.py --config=configs/mnist_ibp.py --workdir=runs/mnist_ibp

The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_standard
from robustgen.losses import ibp
from robustgen.schedules import ramp
from robustgen.threats import linf


def get_config(*, eps: float = 0.3) -> fdl.Config:
    config = mnist_standard.get_config(eps=eps)
    config.training.num_epochs = 40
    rising = fdl.Config(ramp, 0.0, eps, begin=0.05, length=0.5)
    kappa = fdl.Config(ramp, 1.0, 0.5, begin=0.05, length=0.5)
    config.loss = fdl.Config(ibp, fdl.Config(linf, eps=rising), kappa=kappa)
    return config
