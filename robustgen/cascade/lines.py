"""What a cascade says while it runs: the lines that users of AutoAttack know, each accuracy with its interval."""

import time

from robustgen import log
from robustgen.attacks.search import Search
from robustgen.cascade.run import Progress, Stage
from robustgen.cascade.whole import After, Evaluation
from robustgen.core import Estimate
from robustgen.evaluation.intervals import wilson


def percent(estimate: Estimate) -> str:
    """ "30.9 % [28.1, 33.8]"."""
    return f"{100 * estimate.value:.1f} % [{100 * estimate.lower:.1f}, {100 * estimate.upper:.1f}]"


def announcer(num_examples: int) -> tuple[Progress, After]:
    """(progress, after) for `evaluate` on `num_examples`: a line that updates itself, and one that stays per search."""
    begun, bars = time.monotonic(), {}

    def progress(name: str, done: int, total: int, standing: int) -> None:
        bar = bars.setdefault(name, log.Progress(total, start=done, label=name))
        now = wilson(standing, num_examples)
        bar.update(done, {"robust %": 100 * now.value, "from": 100 * now.lower, "to": 100 * now.upper})

    def after(search: Search, stage: Stage, robust: int) -> None:
        left, total = wilson(robust, num_examples), log.clock_time(time.monotonic() - begun)
        log.note(f"robust accuracy after {search.name.upper()}: {percent(left)}  (total {total})")

    return progress, after


def closing(found: Evaluation, name: str) -> str:
    """The last lines: what was perturbed by how much, what it cost, and the accuracies."""
    columns, n = found.columns, len(found.columns["index"])
    forwards, backwards = (columns[f"{way}:{name}"].sum() for way in ("forwards", "backwards"))
    clean, robust = (wilson(int(columns[column].sum()), n) for column in ("clean", f"robust:{name}"))
    linf, l2 = (columns[f"distance_{norm}:{name}"].max() for norm in ("linf", "l2"))
    return (
        f"max perturbation: Linf {linf:.5f}, L2 {l2:.5f}, "
        f"min {found.x_adv.min():.5f}, max {found.x_adv.max():.5f}; {forwards} forward, {backwards} backward passes\n"
        f"clean accuracy: {percent(clean)}, robust accuracy: {percent(robust)} ({name}, n = {n})"
    )
