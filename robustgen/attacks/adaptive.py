"""Attacks on defences that hide or randomise gradients. Athalye, Carlini and Wagner 2018 (arXiv 1802.00420).

    bpda       a function with the derivative of another: for what is not differentiable
    eot        logits of several draws of a randomised model, for `expected` objectives: attacks on the expected loss
    against    an attack on a model behind a transform of its input, `bpda` and `eot` in place
    transfer   an attack on another model

The defences are in `robustgen.defences`; nothing here knows them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.pgd import Best, better
from robustgen.core import Array, Attack, Key, LogitsFn, Objective, PyTree
from robustgen.knobs import Count, checked
from robustgen.spread import example_keys

RandomLogitsFn = Callable[[Array, Key], Array]
"""(x [B, ...], key) -> logits [B, K]; `key` is one key, or per-example keys [B]."""

_DRAWS = np.uint32(0x0D2A)  # apart from what attacks fold into their keys


def identity(x: Array, *rest: PyTree) -> Array:
    """x, whatever comes with it: the backward pass of most preprocessing, which hardly moves its input."""
    del rest
    return x


def bpda(forward: Callable[..., Array], backward: Callable[..., Array] = identity) -> Callable[..., Array]:
    """(x, *rest) -> forward(x, *rest), whose derivative by x is that of `backward(x, *rest)`, as a vjp.

    Backward pass differentiable approximation, section 4.1.2 of the paper; section 4.1.1 (straight-through) with the
    identity. `backward` is traced at the x of the forward pass, only where a derivative is wanted, and must give
    `forward`'s shape. Nothing is differentiated by `rest` (keys, say).
    """

    @jax.custom_vjp
    def approximated(x: Array, *rest: PyTree) -> Array:
        return forward(x, *rest)

    def ahead(x: Array, *rest: PyTree) -> tuple[Array, tuple]:
        return forward(x, *rest), (x, rest)

    def back(residuals: tuple, cotangent: Array) -> tuple:
        x, rest = residuals
        _, pull = jax.vjp(lambda z: backward(z, *rest), x)
        return (*pull(cotangent), *(None for _ in rest))

    approximated.defvjp(ahead, back)
    return approximated


@checked
def eot(random_logits_fn: RandomLogitsFn, *, num_samples: Count, key: Key) -> LogitsFn:
    """Expectation over transformation: x [B, ...] -> logits [B, S, K] of S = `num_samples` draws, for `expected`.

    An attack with `expected(objective)` then ascends the gradient of E_t objective(f(t(x))), the expected loss: the
    mean of S gradients, section 4.2 of the paper and Athalye et al. 2018b (arXiv 1707.07397, eq. 2). AutoAttack's
    rand version does so with 20 (`eot_iter`). The gradient of the objective of mean logits, or of mean probabilities
    (`mean_prediction`), is another one: for those, few draws that are right drown many that are nearly wrong.

    The draws are made from `key` (one, or per-example keys [B]) and x itself: the iterates of an attack meet new ones,
    and yet this is a function, with the same logits for the same x, wherever in a batch it is.
    """

    def sampled(x: Array) -> Array:
        keys = _keys_of(x, jnp.broadcast_to(key, x.shape[:1]))
        draw = jax.vmap(jax.random.fold_in, (0, None))
        logits = jax.vmap(lambda index: random_logits_fn(x, draw(keys, index)))(jnp.arange(num_samples))
        return jnp.moveaxis(logits, 0, 1)

    return sampled


def expected(objective: Objective) -> Objective:
    """(logits [B, S, K], target) -> the mean over S draws of `objective`, [B]: what an attack on `eot` maximises.

    Logits [B, K], of a model that is not random, are one draw.
    """

    @functools.wraps(objective)
    def mean(logits: Array, target: PyTree) -> Array:
        logits = logits[:, None] if logits.ndim == 2 else logits
        return jnp.mean(jax.vmap(objective, (1, None))(logits, target), axis=0)

    return mean


@checked
def mean_prediction(random_logits_fn: RandomLogitsFn, *, num_samples: Count, key: Key) -> LogitsFn:
    """log E_t softmax(f(t(x))), [B, K]: the soft vote of `num_samples` draws, as a model for any attack.

    Its cross-entropy is the objective of Salman et al. 2019 (arXiv 1906.04584, eq. 5) against smoothed classifiers.
    """
    sampled = eot(random_logits_fn, num_samples=num_samples, key=key)
    return lambda x: jax.nn.logsumexp(jax.nn.log_softmax(sampled(x)), axis=1) - jnp.log(num_samples)


@checked
def against(attack: Attack, *, transform: Callable[[Array, Key], Array], num_samples: Count) -> Attack:
    """`attack` on the model behind `transform`: handed the bare model, it crafts against the defended one.

    The adaptive attack on a preprocessing defence t, for an `attack` whose objective and judge are `expected`:

        bit depth, JPEG                 transform=bpda(t), num_samples=1
        median                          transform=t, num_samples=1
        resizing and padding, noise     transform=t, num_samples=20
        total variation with dropping   transform=t or bpda(t), num_samples=20

    `transform=t, num_samples=1` where t is not differentiable is the naive attack that such defences were shown to
    withstand. Success is to be judged on the defended model, with draws of its own.
    """

    def adapted(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        keys = example_keys(key, x.shape[0])

        def behind(z: Array, draw: Key) -> Array:
            return logits_fn(transform(z, draw))

        draws = jax.vmap(jax.random.fold_in, (0, None))(keys, _DRAWS)
        return attack(eot(behind, num_samples=num_samples, key=draws), x, target, keys)

    return adapted


@checked
def transfer(attack: Attack, *, surrogate: LogitsFn, judge: Objective | None = None) -> Attack:
    """Crafts on `surrogate`, a model that the attacker has, and never differentiates the attacked one.

    Papernot, McDaniel and Goodfellow 2016 (arXiv 1605.07277). With a `judge`, x is kept where the attacked model says
    that x_adv is no better: one query each.
    """

    def transferred(logits_fn: LogitsFn, x: Array, target: PyTree, key: Key) -> Array:
        return no_worse(logits_fn, x, attack(surrogate, x, target, key), target, judge)

    return transferred


def no_worse(logits_fn: LogitsFn, x: Array, x_adv: Array, target: PyTree, judge: Objective | None) -> Array:
    """x_adv, but x where `judge` (if there is one) values it as much."""
    if judge is None:
        return x_adv
    clean, found = (Best(z, judge(logits_fn(z), target)) for z in (x, x_adv))
    return better(clean, found).x


def undetected_margin(logits: Array, y: Array) -> Array:
    """max_{k != y, k < K} logit_k - max(logit_y, logit_K), [B]; logits [B, K + 1] whose last class is "rejected".

    Positive exactly where the example is misclassified and gets past the detector; y [B] int32 below K.
    """
    classes = jnp.arange(logits.shape[-1])
    stopped = (classes == y[:, None]) | (classes == logits.shape[-1] - 1)
    others, stops = (jnp.max(jnp.where(rows, logits, -jnp.inf), axis=-1) for rows in (~stopped, stopped))
    return others - stops


def _keys_of(x: Array, keys: Key) -> Key:
    """Keys [B] that depend on the bits of each example too, so that another x is another draw."""
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x).astype(jnp.float32), jnp.uint32)
    bits = bits.reshape(x.shape[0], -1)
    odd = 2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1
    scattered = (bits ^ (bits >> 15)) * jnp.uint32(0x2C1B3C6D)  # without it, high bits would not reach low ones
    mixed = jnp.sum((scattered ^ (scattered >> 12)) * (odd * jnp.uint32(0x9E3779B1)), axis=1, dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in)(keys, mixed)
