"""Certified training by interval bounds on CIFAR-10, Linf 2/255, conv16-conv32-fc100; eps and kappa ramp.

    python experiments/train.py --config=configs/cifar10_ibp.py --workdir=runs/cifar10_ibp
    python experiments/evaluate.py --config=configs/cifar10_ibp.py --workdir=runs/cifar10_ibp

The small net is for speed; published results use seven-layer nets. The full length has not been run yet.
"""

import fiddle as fdl

from configs import cifar10_standard
from robustgen.losses import ibp
from robustgen.models import wong_cnn
from robustgen.optim import adam
from robustgen.schedules import piecewise, ramp
from robustgen.threats import linf


def get_config(*, eps: float = 2 / 255) -> fdl.Config:
    config = cifar10_standard.get_config(eps=eps)
    config.model = fdl.Config(wong_cnn, num_classes=10, mean=cifar10_standard.MEAN, std=cifar10_standard.STD)
    rate = fdl.Config(piecewise, (5e-4, 5e-5, 5e-6), boundaries=(0.75, 0.9))
    config.optimizer = fdl.Config(adam, learning_rate=rate, clip_norm=10.0)
    rising = fdl.Config(ramp, 0.0, eps, begin=0.05, length=0.5)
    kappa = fdl.Config(ramp, 1.0, 0.5, begin=0.05, length=0.5)
    config.loss = fdl.Config(ibp, fdl.Config(linf, eps=rising), kappa=kappa)
    config.evaluation.curve = tuple(k / 2550 for k in (0, 5, 10, 15, 20, 30, 40, 80, 160, 320, 640))
    return config
