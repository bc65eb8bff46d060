"""Who may import whom, read from the source: the layers of the package, and what no file may use."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "robustgen").rglob("*.py"))
METHODS = ("losses", "attacks", "certify")
HANDED_THEIR_METHODS = ("train", "population", "parallel", "optim", "checkpoint", "meta", "evaluation", "models")
FORBIDDEN = {  # a part of robustgen -> parts of robustgen, or other packages, that it never imports
    "core": ("knobs", "threats", "models", "data", "train", *METHODS),
    "knobs": ("core", "threats", "models", "data", "train", *METHODS),
    "threats": ("models", "data", "train", "flax", *METHODS),
    "attacks": ("models", "data", "train", "evaluation", "losses", "flax"),
    "cascade": ("models", "data", "train", "losses", "certify", "flax"),
    "certify": ("models", "data", "train", "evaluation", "losses", "attacks", "flax"),
    "exchange": ("models", "data", "train", "evaluation", "flax", *METHODS),
    "defences": ("threats", "models", "data", "train", "evaluation", "flax", *METHODS),
    "losses": ("models", "data", "train", "evaluation", "flax"),
    "validity": ("models", "data", "train", "losses", "certify", "flax"),
    **{part: METHODS for part in HANDED_THEIR_METHODS},
}
NOWHERE = ("cli", "__main__", "configs", "experiments", "tests", "pickle", "cloudpickle", "dill", "shelve", "marshal")
INTERNALS = ("jax._src", "jax.extend", "jax.interpreters", "jaxlib")


def imported(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    """Dotted names of all that a file imports, relative imports resolved, and of what it reads of jax and robustgen."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names |= {name for name in [ast.unparse(node)] if name.startswith(("jax", "robustgen."))}
    return names


def violations(tree: ast.AST, module: tuple[str, ...]) -> list[str]:
    """What the module robustgen.<module> imports or calls although it must not."""
    names = imported(tree, ("robustgen", *module[:-1]))
    parts = {name.removeprefix("robustgen.").split(".")[0] for name in names}
    if module[0] == "data":
        ours = {name.split(".")[1] for name in names if name.startswith("robustgen.")}
        found = ours - {"core", "knobs", "files", "spread", "data"}
    else:
        found = parts & set(FORBIDDEN.get(module[0], ()))
    found |= parts & set(NOWHERE) if module[0] not in ("cli", "__main__") else set()
    if module != ("certify", "interpreter"):
        found |= {name for name in names if name.startswith(INTERNALS)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called, keywords = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        if called in ("eval", "exec", "__import__") or keywords.get("allow_pickle", "False") != "False":
            found.add(called)
        if called.endswith("make_mesh") and "axis_types" not in keywords:
            found.add("make_mesh without axis_types")
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path):
    module = path.relative_to(ROOT / "robustgen").with_suffix("").parts
    found = violations(ast.parse(path.read_text()), module)
    assert not found, f"{path.relative_to(ROOT)} must not use {', '.join(found)}"


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        (("train",), "from robustgen.losses.trades import trades", ["losses"]),
        (("evaluation", "metrics"), "from robustgen import attacks", ["attacks"]),
        (("attacks", "pgd"), "import flax.linen as nn", ["flax"]),
        (("certify", "ibp"), "from ..models import mlp", ["models"]),
        (("data", "source"), "from robustgen import threats", ["threats"]),
        (("log",), "import robustgen.cli", ["cli"]),
        (("models", "conv"), "import jax\njax._src.core.Jaxpr", ["jax._src", "jax._src.core", "jax._src.core.Jaxpr"]),
        (("parallel",), "mesh = jax.make_mesh((8,), ('data',))", ["make_mesh without axis_types"]),
        (("checkpoint",), "import pickle\neval('1')", ["eval", "pickle"]),
        (("evaluation", "results"), "np.load(f, allow_pickle=True)", ["np.load"]),
        (("evaluation", "results"), "np.load(f, allow_pickle=False)", []),
        (("certify", "interpreter"), "import jax.extend", []),
        (("attacks", "pgd"), "from robustgen.threats import linf", []),
    ],
)
def test_the_rule_itself_finds_what_it_should(module, source, found):
    assert violations(ast.parse(source), module) == found


def test_importing_everything_touches_no_device():
    """Programs still choose devices, or join other processes, after their imports."""
    names = [".".join(("robustgen", *path.relative_to(ROOT / "robustgen").with_suffix("").parts)) for path in FILES]
    modules = sorted({name.removesuffix(".__init__") for name in names} - {"robustgen.__main__"})
    source = f"import importlib\nfor name in {modules}: importlib.import_module(name)\nimport jax\n"
    checked = source + "jax.config.update('jax_num_cpu_devices', 3)\nassert jax.device_count() == 3"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", checked], check=True, cwd=ROOT, env={**environment, "JAX_PLATFORMS": "cpu"})
