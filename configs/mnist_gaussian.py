"""Gaussian augmentation for randomized smoothing on MNIST, sigma 0.5 of pixels in [0, 1], conv16-conv32-fc100.

    python experiments/smoothing.py --config=configs/mnist_gaussian.py --workdir=runs/mnist_gaussian

Needs MNIST prepared for TFDS: `robustgen prepare mnist`, or --config.data.dir / TFDS_DATA_DIR where it lies.
The full length has not been run yet.
"""

import fiddle as fdl

from configs import mnist_standard
from robustgen.losses.smoothing import gaussian
from robustgen.threats import l2


def get_config(*, sigma: float = 0.5) -> fdl.Config:
    config = mnist_standard.get_config()
    config.evaluation.threat = fdl.Config(l2, eps=1.0)
    config.evaluation.curve = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    config.evaluation.num_examples = 500
    config.loss = fdl.Config(gaussian, sigma=sigma)
    return config
