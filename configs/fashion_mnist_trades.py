"""mnist_trades.py on Fashion-MNIST, Linf eps 0.1.

    python experiments/train.py --config=configs/fashion_mnist_trades.py --workdir=runs/fashion_mnist_trades
    python experiments/evaluate.py --config=configs/fashion_mnist_trades.py --workdir=runs/fashion_mnist_trades

Needs `robustgen prepare fashion_mnist`. The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_trades


def get_config() -> fdl.Config:
    config = mnist_trades.get_config(eps=0.1)
    config.data.name = "fashion_mnist"
    config.evaluation.curve = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.3)
    return config
