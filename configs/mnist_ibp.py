"""Certified training by interval bounds on MNIST, Linf eps 0.3, conv16-conv32-fc100; eps and kappa ramp.

    python experiments/train.py --config=configs/mnist_ibp.py --workdir=runs/mnist_ibp
    python experiments/evaluate.py --config=configs/mnist_ibp.py --workdir=runs/mnist_ibp

--config=configs/mnist_ibp.py:0.1 is eps 0.1.
The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_standard
from robustgen.losses import ibp
from robustgen.schedules import ramp
from robustgen.threats import linf


def get_config(eps: float | str = 0.3) -> fdl.Config:
    config = mnist_standard.get_config(eps=float(eps))
    config.training.num_epochs = 40
    config.loss = fdl.Config(ibp, rising(config), kappa=ramped(1.0, 0.5))
    return config


def ramped(start: float, end: float) -> fdl.Config:
    """From `start` to `end` over the half of training in which the radius rises."""
    return fdl.Config(ramp, start, end, begin=0.05, length=0.5)


def rising(config: fdl.Config, start: float = 0.0) -> fdl.Config:
    """The threat of training: its radius ramps to that of the evaluation."""
    return fdl.Config(linf, eps=ramped(start, config.evaluation.threat.eps))
