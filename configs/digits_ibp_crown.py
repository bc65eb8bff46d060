"""The net of digits_ibp.py, certified by CROWN too: in real arithmetic, and with every rounding error taken off.

    python experiments/evaluate.py --config=configs/digits_ibp_crown.py --workdir=runs/digits_ibp

Reads the net that configs/digits_ibp.py trained; AutoAttack skips what sound-CROWN verifies.

Measured by this command on 500 test images (seed 0, 2 CPU cores, jax 0.12, 57 CPU s in all, other jobs running):
certified 72.8 [68.7, 76.5] % by sound-CROWN and by CROWN, the same images, 73.6 [69.6, 77.3] % by IBP, 75.2 [71.2,
78.8] % by one of them; clean 97.4 [95.6, 98.5] %, robust 80.6 [76.9, 83.8] % under AutoAttack and PGD-50x3.
"""

import fiddle as fdl

from configs import digits_ibp
from robustgen.certify import crown, ibp, sound_crown


def get_config() -> fdl.Config:
    config = digits_ibp.get_config()
    config.evaluation.certifiers = {"sound-CROWN": sound_crown, "CROWN": crown, "IBP": ibp}
    return config
