"""Terms that make a loss of bounds trainable: each wraps any loss, `balanced(l1(ibp(...), ...), ...)`."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.certify import RULES
from robustgen.certify.interpreter import Equation, Program, Rule, Slot, evaluate, trace
from robustgen.certify.rules import WHOLE
from robustgen.core import Array, Aux, Interval, Key, LogitsFn, Loss, Net, PyTree, Threat
from robustgen.knobs import NonNegative, Positive, checked
from robustgen.losses.certified.bounds import bounded
from robustgen.optim import matrices
from robustgen.spread import mean_over_devices


@checked
def l1(loss: Loss, *, weight: NonNegative) -> Loss:
    """`loss` + weight * the sum of absolute values of all kernels (leaves of two dimensions and more).

    Used by the recipes of Mueller et al. 2023, De Palma et al. 2024 and CTBench (Mao et al. 2024, arXiv 2406.04848).
    Adds the metric l1.
    """

    def regularized(net: Net, batch: PyTree, key: Key) -> tuple[Array, Aux]:
        value, aux = loss(net, batch, key)
        kernels = jax.tree.map(lambda leaf, kept: leaf if kept else None, net.params, matrices(net.params))
        size = sum((jnp.sum(jnp.abs(kernel)) for kernel in jax.tree.leaves(kernels)), jnp.zeros((), value.dtype))
        return value + weight * size, Aux(aux.state, {**aux.metrics, "l1": size})

    return regularized


@checked
def balanced(loss: Loss, threat: Threat, *, weight: NonNegative, tolerance: Positive) -> Loss:
    """`loss` + weight * (L_tightness + L_relu), means over relu layers. Shi et al. 2021 (arXiv 2103.17268), sec. 3.3.

    L_tightness punishes bounds that are more than 1 / tolerance times as wide as the input's; L_relu layers whose
    always active and always inactive units differ by more than that, in the mean or variance of their centres.
    Published: tolerance 0.5, weight 0.5 * (1 - eps / its end), which for a linear ramp of eps is a ramp of `weight`
    from 0.5 to 0 over the same time; and eps not below 1e-6, as a set without width has no tightness (the term is then
    constant). Statistics are those of the global batch. Batch norm as in `ibp`. Where `weight` is 0 the penalties are
    not computed, and are logged as 0.

    Raises `ValueError` where the net has no relu. Adds the metrics tightness_penalty and relu_penalty.
    """

    def regularized(net: Net, batch: PyTree, key: Key) -> tuple[Array, Aux]:
        value, aux = loss(net, batch, key)

        def penalties() -> tuple[Array, Array]:
            layers = relu_inputs(bounded(dataclasses.replace(net, state=aux.state)), batch.x, threat)
            lower, upper = threat.bounds(batch.x)
            width = _mean(upper - lower) / 2
            tightness = sum(tightness_penalty(layer, width, tolerance) for layer in layers) / len(layers)
            relu = sum(relu_penalty(layer, tolerance) for layer in layers) / len(layers)
            return tightness.astype(value.dtype), relu.astype(value.dtype)

        none = jnp.zeros((), value.dtype), jnp.zeros((), value.dtype)
        tightness, relu = jax.lax.cond(jnp.asarray(weight) > 0, penalties, lambda: none)
        metrics = {**aux.metrics, "tightness_penalty": tightness, "relu_penalty": relu}
        return value + weight * (tightness + relu), Aux(aux.state, metrics)

    return regularized


def tightness_penalty(layer: Interval, width: Array, tolerance: Positive) -> Array:
    """max(0, tolerance - width / the layer's mean radius) / tolerance; `width` is the mean radius of the input."""
    radius = _mean(layer.upper - layer.lower) / 2
    return jax.nn.relu(tolerance - width / jnp.maximum(radius, 1e-12)) / tolerance


def relu_penalty(layer: Interval, tolerance: Positive) -> Array:
    """max(0, tolerance - r) / tolerance, summed over the ratios r (the smaller over the larger) of mean and variance
    of the bounds' centres, between units that are always active and always inactive; units that may be both count as 0.

    As in the official code (shizhouxing/Fast-Certified-Robust-Training) variances are about the mean of the whole
    layer, and a layer without inactive units, or whose units are all alike, has no penalty.
    """
    centre = (layer.lower + layer.upper) / 2
    active, inactive = layer.lower > 0, layer.upper < 0
    spread = jnp.square(centre - _mean(centre))
    means = _mean(centre * active), -_mean(centre * inactive)
    variances = _mean(spread * active), _mean(spread * inactive)
    penalty = sum(jax.nn.relu(tolerance - _ratio(*pair)) for pair in (means, variances)) / tolerance
    defined = (means[1] > 0) & ((variances[0] > 0) | (variances[1] > 0))
    return jnp.where(defined, penalty, 0.0)


def _mean(values: Array) -> Array:
    return mean_over_devices(jnp.mean(values))


def _ratio(a: Array, b: Array) -> Array:
    """The smaller over the larger of two numbers >= 0; 0 where both are 0."""
    larger = jnp.maximum(a, b)
    return jnp.minimum(a, b) / jnp.where(larger > 0, larger, 1.0)


def relu_inputs(
    logits_fn: LogitsFn, x: Array, threat: Threat, rules: Mapping[str, Rule] = RULES
) -> list[Interval]:
    """Interval bounds [B, 1, ...] over the set around x [B, ...] of what each relu of the net is given, first to last,
    in the shape that it has for a batch of one example.

    A relu is any maximum of a perturbed value and 0, however the net is written. Raises `ValueError` where there is
    none.
    """
    program = trace(lambda row: logits_fn(row[None])[0], jax.ShapeDtypeStruct(x.shape[1:], x.dtype), WHOLE)
    slots = [slot for equation in program.equations for slot in _rectified(program, equation)]
    if not slots:
        raise ValueError("relu_inputs: the net has no max(x, 0), and the penalties are means over relu layers")
    box = Interval(*threat.bounds(x))
    return jax.vmap(lambda b: evaluate(program, {program.input: b}, slots, rules))(box)


def _rectified(program: Program, equation: Equation) -> list[Slot]:
    """The operand of a relu; empty for other equations."""
    if equation.name != "max":
        return []
    moved = [slot for slot in equation.inputs if slot in program.perturbed]
    fixed = [slot for slot in equation.inputs if slot not in program.perturbed]
    return moved if len(moved) == 1 and _is_zero(program, fixed[0]) else []


def _is_zero(program: Program, slot: Slot) -> bool:
    """Whether a slot holds zeros that are written into the program, broadcast or cast perhaps."""
    made = {out: equation for equation in program.equations for out in equation.outputs}
    while slot in made and made[slot].name in ("broadcast_in_dim", "convert_element_type"):
        (slot,) = made[slot].inputs
    value = program.constants.get(slot)
    return value is not None and not isinstance(value, jax.core.Tracer) and not np.any(value)
