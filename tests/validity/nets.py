"""Small nets trained on digits, and the sets that they are attacked in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robustgen import attacks, losses, threats
from robustgen.attacks.starts import gaussian
from robustgen.core import Array, Batch, Loss, Net
from robustgen.data import digits
from robustgen.data.source import scaled
from robustgen.models import mlp
from robustgen.models.net import init

EPS = 0.1
MLP, LINEAR = mlp(hidden=(64, 32), num_classes=10), mlp(hidden=(), num_classes=10)


def split(name: str) -> tuple[np.ndarray, np.ndarray]:
    source = digits(num_validation=150)
    return scaled(source.load(name), source.scale)


def trained(loss: Loss, module=MLP, num_steps: int = 600) -> Net:
    """Adam on batches of 128."""
    x, y = map(jnp.asarray, split("train"))
    tx, net = optax.adam(3e-3), init(module, x.shape[1:], jax.random.key(0))

    @jax.jit
    def run(params):
        def step(carry, key):
            params, moments = carry
            rows = jax.random.randint(key, (128,), 0, len(y))
            batch = Batch(x[rows], y[rows])
            gradient = jax.grad(lambda p: loss(Net(p, {}, net.apply_fn), batch, key)[0])(params)
            change, moments = tx.update(gradient, moments)
            return (optax.apply_updates(params, change), moments), None

        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(jax.random.key(1), num_steps))[0][0]

    return Net(run(net.params), {}, net.apply_fn)


def inner(objective, start=attacks.starts.uniform):
    return attacks.pgd(threats.linf(EPS), objective=objective, step_size=0.03, num_steps=7, start=start)


NETS = {
    "standard": lambda: trained(losses.standard()),
    "pgd_at": lambda: trained(losses.pgd_at(inner(attacks.cross_entropy))),
    "trades": lambda: trained(losses.trades(inner(attacks.kl, gaussian(scale=0.001)), beta=6.0)),
    "hurried": lambda: trained(losses.standard(), num_steps=100),
    "linear": lambda: trained(losses.standard(), LINEAR),
}


@functools.cache
def linf_of(clip: tuple[float, float]):
    """One function for equal clips, so that compiled checks are shared."""

    def at(eps: Array):
        return threats.linf(eps, clip)

    return at
