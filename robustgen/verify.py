"""`robustgen verify`: whether a network (ONNX) violates a property (VNN-LIB), answered completely if time allows.

The words are those of the competition (VNN-COMP): sat where a counterexample was found and confirmed in float32 and in
float64 at a float32 point of the box, unsat where all domains were bounded away from a violation in float32 (with a
margin for its rounding, which is no proof about it), timeout, and unknown where what is left cannot be told.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen import log, threats
from robustgen.certify.alpha import ascent
from robustgen.certify.branch import (
    Claims,
    Progress,
    Prover,
    Settled,
    StateError,
    Status,
    descents,
    halves,
    neurons,
    prover,
    settle,
)
from robustgen.certify.branch.sites import sites, splittable
from robustgen.core import LogitsFn
from robustgen.data.cache import cache_dir
from robustgen.exchange import (
    Counterexample,
    OnnxNet,
    Property,
    Result,
    Verdict,
    load_question,
    result_text,
    write_result,
)

FEW_INPUTS = 8
"""Up to so many inputs, boxes of them are halved; beyond, neurons are split."""

_ANY_BOX = threats.box(0.0, 1.0)  # of its kind: the boxes themselves are the claims'


class Provers(NamedTuple):
    """One for each way to split; each compiles what it needs when it is first asked."""

    neurons: Prover
    inputs: Prover


def provers() -> Provers:
    """The recipe, found on the 256x2 network of VNN-COMP 2021's mnistfc (experiments/vnncomp.py)."""
    search = descents(_ANY_BOX, num_steps=50, step_size=0.25)
    by_neurons = neurons(
        _ANY_BOX,
        between=ascent(num_steps=20, learning_rate=0.5, decay=0.98),
        first=ascent(num_steps=30, learning_rate=0.3, decay=0.98),
        each=ascent(num_steps=10, learning_rate=0.1, decay=0.98),
        tilt_scale=1.0,
        num_candidates=4,
    )
    by_inputs = halves(_ANY_BOX, each=ascent(num_steps=3, learning_rate=0.3, decay=0.9))
    knobs = dict(num_restarts=100, memory=4e9, rounding=2**-20)
    return Provers(
        prover(_ANY_BOX, by_neurons, search, batch=128, **knobs),
        prover(_ANY_BOX, by_inputs, search, batch=512, **knobs),
    )


class Answer(NamedTuple):
    """A result, and what it took."""

    result: Result
    settled: Settled


def verify(
    net: OnnxNet,
    asked: Property,
    *,
    timeout: float,
    seed: int,
    among: Provers,
    fn: LogitsFn | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    state: pathlib.Path | None = None,
) -> Answer:
    """The answer to a property within about `timeout` seconds.

    among: inputs are split where there are at most `FEW_INPUTS` of them or no neuron can be, else neurons. fn: what
    `function_of` gave for the network before, so that nothing is compiled twice. state: see `certify.branch.settle`;
    where the file exists, the search goes on from it.
    """
    fn = fn or function_of(net, asked)
    by, key = chosen(fn, asked.num_inputs, among), jax.random.key(seed)
    found = settle(by, fn, claims_of(asked), timeout=timeout, key=key, report=report, state=state)
    return Answer(_result(net, found, out_of_time=found.seconds >= timeout), found)


def function_of(net: OnnxNet, asked: Property | None = None) -> LogitsFn:
    """What a property looks at, x [B, inputs] -> [B, K]: the outputs, and those inputs that it watches.

    Keep it where several properties look at the same: what is compiled is compiled for this object.
    """
    return jax.tree_util.Partial(jax.vmap(net.flat if asked is None else asked.observe(net.flat)))


def chosen(fn: LogitsFn, num_inputs: int, among: Provers) -> Prover:
    """The prover that suits a function."""
    program = splittable(fn, (num_inputs,), jnp.zeros(()).dtype)
    return among.inputs if num_inputs <= FEW_INPUTS or not sites(program) else among.neurons


def claims_of(asked: Property) -> Claims:
    """One claim for each box and clause: that of the clause's rows A v <= b one fails. All are of one group."""
    clauses = [(box, clause) for box in asked.boxes for clause in box.clauses]
    rows = max(max(len(clause.b) for _, clause in clauses), 1)
    width = asked.num_outputs + len(asked.watched)
    A, b = np.zeros((len(clauses), rows, width)), np.zeros((len(clauses), rows))
    for n, (_, clause) in enumerate(clauses):
        if len(clause.b):  # a clause without rows is 0 v <= 0, which is always violated
            which = np.arange(rows) % len(clause.b)
            A[n], b[n] = clause.A[which], clause.b[which]
    lower, upper = (np.stack([getattr(box, end) for box, _ in clauses]) for end in ("lower", "upper"))
    return Claims((lower + upper) / 2, lower, upper, A, b, np.zeros(len(clauses), int))


def _result(net: OnnxNet, found: Settled, out_of_time: bool) -> Result:
    if found.found:
        x = next(iter(found.found.values())).x
        return Result(Verdict.SAT, Counterexample(x, np.asarray(net.flat(jnp.asarray(x)))))
    if all(status is Status.PROVED for status in found.status):
        return Result(Verdict.UNSAT)
    return Result(Verdict.TIMEOUT if out_of_time else Verdict.UNKNOWN)


def from_command_line(args: argparse.Namespace) -> int:
    """Runs `robustgen verify`; its exit code. Raises `ExchangeError` for files that cannot be used."""
    net, asked = load_question(args.model, args.property)
    keep_compiled()
    state = None if args.state is None else pathlib.Path(args.state)
    both = provers()
    among = {"neurons": Provers(both.neurons, both.neurons), "inputs": Provers(both.inputs, both.inputs), None: both}
    report = (lambda progress: None) if args.quiet else progress_lines(every=5.0)
    knobs = dict(timeout=args.timeout, seed=args.seed, among=among[args.split], report=report, state=state)
    try:
        answer = verify(net, asked, **knobs)
    except StateError as error:
        print(f"robustgen: {error}", file=sys.stderr)  # as the command prints what else is wrong
        return 2
    log.say(result_text(answer.result).removesuffix("\n"))
    if args.out is not None:
        write_result(args.out, answer.result)
    return 0 if answer.result.verdict in (Verdict.SAT, Verdict.UNSAT) else 1


def progress_lines(*, every: float) -> Callable[[Progress], None]:
    """Prints a line to stderr every so many seconds."""
    last = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            open, closed, worst, seconds, rounds = progress
            line = f"{seconds:7.1f} s  {open} domains open, {closed} closed, worst bound {worst:.4g}, round {rounds}"
            log.note(line)

    return report


def keep_compiled() -> None:
    """What is compiled for a network is kept for the next process, unless the user has said where to or not to."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and "JAX_ENABLE_COMPILATION_CACHE" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
