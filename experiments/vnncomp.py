"""Answers a competition's list of instances (VNN-COMP: `model.onnx,property.vnnlib,seconds`) and writes a table.

    python experiments/vnncomp.py instances.csv --out=table.csv [--expected=verdicts.json]

One process: a network is loaded and compiled once for all its properties. `seconds` of a row are those of its own
search, with what was compiled on the way (most in a network's first); loading the files is not in it. --expected: JSON
`{"instances": [{"net": ..., "prop": ..., "verdict": ...}]}`, held against the answers; exit code 1 where one differs.

Measured: the 30 properties of mnist-net_256x2 of VNN-COMP 2021 (300 s each), 2 CPU cores shared with other jobs,
nothing compiled before: all 30 verdicts of the competition reproduced (18 unsat, 12 sat), none contradicted, 38.8 s of
processors and 138.6 s of wall time in all. The first instance compiles for 14 s of processors; the longest of the
others, prop_1_0.03 (2 of the competition's tools solved it, alpha-beta-CROWN in 38 s on a GPU), takes 2663 domains and
4.6 s of processors.
"""

import argparse
import csv
import functools
import json
import pathlib
import sys
import time

from robustgen.exchange import Verdict, load_instances, load_onnx, load_vnnlib, write_result
from robustgen.verify import function_of, keep_compiled, progress_lines, provers, verify

COLUMNS = ("net", "property", "verdict", "expected", "seconds", "cpu_seconds", "domains", "rounds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", help="the list; paths in it are beside it")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("vnncomp.csv"), help="the table (vnncomp.csv)")
    parser.add_argument("--results", type=pathlib.Path, help="folder for result files, in the competition's format")
    parser.add_argument("--expected", type=pathlib.Path, help="verdicts to hold the answers against")
    parser.add_argument("--timeout", type=float, help="seconds, in place of the list's")
    args = parser.parse_args()
    keep_compiled()
    wanted = expected(args.expected)
    rows = []
    with args.out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row in answers(args, wanted):
            rows.append(row)
            table.writerow(row)
            file.flush()
            print(*row, flush=True)
    return summary(rows)


def expected(path: pathlib.Path | None) -> dict[tuple[str, str], str]:
    """The verdicts by the names of their files."""
    listed = json.loads(path.read_text())["instances"] if path else []
    return {(each["net"], each["prop"]): each["verdict"] for each in listed}


def answers(args: argparse.Namespace, wanted: dict):
    """A row of the table for each instance."""
    load, both = functools.cache(load_onnx), provers()
    function = functools.cache(lambda model: function_of(load(model)))
    for model, question, timeout in load_instances(args.instances):
        net, asked = load(model), load_vnnlib(question)
        began, cpu = time.monotonic(), time.process_time()
        found = verify(
            net,
            asked,
            timeout=args.timeout or timeout,
            seed=0,
            among=both,
            fn=None if asked.watched else function(model),
            report=progress_lines(every=30.0),
        )
        took = f"{time.monotonic() - began:.2f}", f"{time.process_time() - cpu:.2f}"
        if args.results:
            write_result(args.results / f"{model.stem}_{question.stem}.counterexample", found.result)
        verdict = wanted.get((model.name, question.name), "")
        yield (
            model.name,
            question.name,
            found.result.verdict.value,
            verdict,
            *took,
            found.settled.domains,
            found.settled.rounds,
        )


def summary(rows: list[tuple]) -> int:
    """Prints the counts; 1 where an answer differs from what was expected."""
    sure = (Verdict.SAT.value, Verdict.UNSAT.value)
    answered = [row for row in rows if row[2] in sure]
    contradicted = [row for row in answered if row[3] in sure and row[2] != row[3]]
    missed = [row for row in rows if row[3] in sure and row[2] not in sure]
    cpu = sum(float(row[5]) for row in rows)
    print(f"{len(rows)} instances, {len(answered)} answered, {len(contradicted)} contradicted, {len(missed)} missed")
    print(f"{sum(float(row[4]) for row in rows):.1f} s in all, {cpu:.1f} s of processors")
    return int(bool(contradicted or missed))


if __name__ == "__main__":
    sys.exit(main())
