"""TRADES on CIFAR-10, PreAct ResNet-18, Linf 8/255, beta 6; weight decay 2e-4 and 76 epochs as in the official code.

    python experiments/train.py --config=configs/cifar10_trades.py --workdir=runs/cifar10_trades
    python experiments/evaluate.py --config=configs/cifar10_trades.py --workdir=runs/cifar10_trades

Deviation from the official code: eps is 8/255, not 0.031, and steps are 2/255, not 0.007. The full length has not been
run yet.
"""

import fiddle as fdl

from configs import cifar10_standard
from robustgen.attacks import kl
from robustgen.attacks.starts import gaussian
from robustgen.losses import trades
from robustgen.schedules import piecewise


def get_config(*, eps: float = 8 / 255) -> fdl.Config:
    config = cifar10_standard.get_config(eps=eps)
    attack = cifar10_standard.attack(config, objective=kl, start=fdl.Config(gaussian, scale=0.001))
    config.loss = fdl.Config(trades, attack, beta=6.0)
    config.training.num_epochs = 76
    config.optimizer.weight_decay = 2e-4
    config.optimizer.learning_rate = fdl.Config(piecewise, (0.1, 0.01), boundaries=(75 / 76,))
    return config
