"""AutoAttack (standard) on a net: what each component leaves and costs, beside figures of the official code.

    python experiments/benchmarks/autoattack.py --weights=NET.npz --images=IMAGES.npz --norm=linf --eps=0.1 --n=1000 \\
        --reference=OFFICIAL.json

`--images`: `image` [N, H, W] or [N, H, W, C] uint8 and `label` [N]. `--reference`: {"components": {NAME: {"robust",
"cpu_s", "fwd_examples", "grad_examples"}}} and, in an .npz of the same name, which examples are robust after NAME (-
written _). All on one core, as one thread. The cascade is run twice: the first run compiles, the second finds it done,
and has to come to the same outcomes.
"""

import argparse
import json
import pathlib
import time
from typing import NamedTuple

import numpy as np
from parity import load_net, use_one_core

from robustgen.attacks import autoattack
from robustgen.attacks.search import Cascade, Search
from robustgen.cascade import evaluate
from robustgen.cascade.run import Stage
from robustgen.core import Net

FAMILIES = {"linf": autoattack.LINF, "l2": autoattack.L2, "l1": autoattack.L1}


class Cost(NamedTuple):
    """Of a component: which examples [n] are left robust; examples evaluated and differentiated, by all steps that were
    made; CPU seconds."""

    robust: np.ndarray
    forwards: int
    backwards: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="NET.npz, beside NET.json")
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--norm", choices=FAMILIES, required=True)
    parser.add_argument("--eps", type=float, required=True)
    parser.add_argument("--n", type=int, default=1000, help="the first n images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=32, help="slots")
    parser.add_argument("--reference", type=pathlib.Path, help="figures of the official code on the same n images")
    parser.add_argument("--core", type=int, help="the core to run on; default: the first")
    args = parser.parse_args()
    core = use_one_core(args.core)
    images, net = np.load(args.images), load_net(args.weights)
    x, y = images["image"][: args.n] / np.float32(255), images["label"][: args.n].astype(np.int32)
    x = x[..., None] if x.ndim == 3 else x
    cascade = autoattack.standard(FAMILIES[args.norm], eps=args.eps)
    title = f"AutoAttack, {args.norm} {args.eps:g}, n = {len(y)}, {args.width} slots, seed {args.seed}, core {core}"
    print(title, flush=True)
    cold, warm = (costs(cascade, net, x, y, seed=args.seed, width=args.width) for _ in range(2))
    changed = sum(int(np.sum(a.robust != b.robust)) for a, b in zip(cold.values(), warm.values(), strict=True))
    report(cold, warm)
    print(f"outcomes that differ between the two runs: {changed}")
    if args.reference:
        compare(cold, warm, args.reference, len(y))


def costs(cascade: Cascade, net: Net, x: np.ndarray, y: np.ndarray, *, seed: int, width: int) -> dict[str, Cost]:
    """Runs the cascade. CPU seconds count from the end of the component before; the first has the clean pass on it."""
    found, begin = {}, time.process_time()

    def after(search: Search, stage: Stage, robust: int) -> None:
        nonlocal begin
        now = time.process_time()
        spent = stage.spent * search.forwards, stage.spent * search.backwards
        found[search.name] = Cost(stage.standing & ~stage.broken, *spent, now - begin)
        begin = now

    evaluate(cascade, net, x, y, seed=seed, width=width, after=after)
    return found


def total(parts: dict[str, Cost]) -> Cost:
    """The last component's outcome and everybody's costs."""
    robust, *sums = zip(*parts.values(), strict=True)
    return Cost(robust[-1], *map(sum, sums))


def report(cold: dict[str, Cost], warm: dict[str, Cost]) -> None:
    """A line per component."""
    print(f"{'':10}{'robust':>8}{'forwards':>12}{'backwards':>12}{'CPU s':>9}{'with compiling':>16}")
    for name in (*warm, "total"):
        now, first = (parts.get(name) or total(parts) for parts in (warm, cold))
        seconds = f"{now.seconds:9.1f}{first.seconds:16.1f}"
        print(f"{name:10}{now.robust.sum():8}{now.forwards:12}{now.backwards:12}{seconds}", flush=True)


def compare(cold: dict[str, Cost], warm: dict[str, Cost], reference: pathlib.Path, n: int) -> None:
    """The official figures: how many times what ours cost, and examples that only one of the two leaves robust."""
    record, flags = json.loads(reference.read_text()), np.load(reference.with_suffix(".npz"))
    official = {name: record["components"][name] for name in warm}
    sums = {key: sum(part[key] for part in official.values()) for key in ("cpu_s", "fwd_examples", "grad_examples")}
    official["total"] = {**sums, "robust": official[[*warm][-1]]["robust"]}
    if len(flags["indices"]) != n:
        raise SystemExit(f"{reference}: is of {len(flags['indices'])} images, not {n}")
    print(f"\nofficial, and official / ours\n{'':10}{'robust':>8}{'only ours':>11}{'only theirs':>13}{'forwards':>18}"
          f"{'backwards':>18}{'CPU s':>16}{'with compiling':>16}")  # fmt: skip
    for name, theirs in official.items():
        now, first = (parts.get(name) or total(parts) for parts in (warm, cold))
        robust = flags[([*warm][-1] if name == "total" else name).replace("-", "_")]
        apart = f"{np.sum(now.robust & ~robust):11}{np.sum(~now.robust & robust):13}"
        forwards = f"{theirs['fwd_examples']:10}{ratio(theirs['fwd_examples'], now.forwards)}"
        backwards = f"{theirs['grad_examples']:10}{ratio(theirs['grad_examples'], now.backwards)}"
        cpu = theirs["cpu_s"]
        seconds = f"{cpu:8.1f}{ratio(cpu, now.seconds)}{ratio(cpu, first.seconds):>16}"
        print(f"{name:10}{theirs['robust']:8}{apart}{forwards}{backwards}{seconds}", flush=True)


def ratio(theirs: float, ours: float) -> str:
    """ "   2.51x", or blank where there is nothing to compare."""
    return f"{theirs / ours:7.2f}x" if ours else " " * 8


if __name__ == "__main__":
    main()
