"""TRADES on MNIST, Linf eps 0.3, beta 6 (the paper's best; the official repository's default is 1).

    python experiments/train.py --config=configs/mnist_trades.py --workdir=runs/mnist_trades
    python experiments/evaluate.py --config=configs/mnist_trades.py --workdir=runs/mnist_trades

The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_standard
from robustgen.attacks import kl
from robustgen.attacks.starts import gaussian
from robustgen.losses import trades


def get_config(*, eps: float = 0.3) -> fdl.Config:
    config = mnist_standard.get_config(eps=eps)
    attack = mnist_standard.attack(config, objective=kl, start=fdl.Config(gaussian, scale=0.001))
    config.loss = fdl.Config(trades, attack, beta=6.0)
    return config
