"""Every recipe in configs/: it resolves, its loss is built at any step, and its docstring says what is known of it."""

import ast
import json
import pathlib
import re

import fiddle as fdl
import numpy as np
import pytest
import tensorflow_datasets

from robustgen import config
from robustgen.attacks import kl, starts
from robustgen.config import app, tree
from robustgen.data import DataError
from robustgen.losses import trades
from robustgen.schedules import Schedule

ROOT = pathlib.Path(__file__).parents[1]
MEASURED_ONLY = {"digits_ibp_crown"}  # the net of another recipe
NAMES = sorted({path.stem for path in (ROOT / "configs").glob("[!_]*.py")} - MEASURED_ONLY)
IMAGES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
SMOOTHING = ("gaussian", "smoothadv", "macer", "consistency")  # methods that one script trains and certifies
CERTIFIED = ("sabr", "crown_ibp", "mtl_ibp", "cc_ibp", "exp_ibp", "ibp")
INTERVAL = re.compile(r"\d+(\.\d+)?(\*\*)? ?\[\d+(\.\d+)?, \d+(\.\d+)?\]")


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory) -> pathlib.Path:
    """A TFDS folder that describes the sets the configs name, without a single record."""
    root = tmp_path_factory.mktemp("tfds")
    for name, shape in IMAGES.items():
        folder = root / name / "1.0.0"
        folder.mkdir(parents=True)
        image = tensorflow_datasets.features.Tensor(shape=shape, dtype=np.uint8)
        label = tensorflow_datasets.features.ClassLabel(num_classes=10)
        tensorflow_datasets.features.FeaturesDict({"image": image, "label": label}).save_config(folder)
        splits = [{"name": "train", "shardLengths": ["50000"]}, {"name": "test", "shardLengths": ["10000"]}]
        (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record", "splits": splits}))
    return root


@pytest.fixture(params=NAMES)
def name(request, catalogue, monkeypatch) -> str:
    monkeypatch.setenv("TFDS_DATA_DIR", str(catalogue))
    return request.param


@pytest.fixture
def cfg(name) -> fdl.Config:
    return app.resolve(str(ROOT / "configs" / f"{name}.py"))[0]


@pytest.fixture
def docstring(name) -> str:
    return ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))


def method_in(name: str) -> str:
    known = ("standard", "pgd_at", "trades", *CERTIFIED, *SMOOTHING)
    return next(method for method in known if name.endswith(f"_{method}"))


def innermost(loss: fdl.Config) -> str:
    """The name of the loss that regularisers wrap."""
    inner = getattr(loss, "loss", None)
    return innermost(inner) if isinstance(inner, fdl.Config) else fdl.get_callable(loss).__name__


def at(value, step, num_steps):
    """A number of a config, or the value of a schedule there."""
    built = config.build(value)
    return built(step, num_steps) if isinstance(built, Schedule) else built


def test_it_describes_a_whole_experiment(name, cfg):
    recipe = config.at_step(cfg, 0, num_steps=100)
    assert recipe.data.name == name.removesuffix(f"_{method_in(name)}")
    assert recipe.data.num_classes == cfg.model.num_classes
    assert innermost(cfg.loss) == method_in(name)
    assert recipe.evaluation.attacks and recipe.evaluation.certifiers


@pytest.mark.parametrize("step", [0, 1, 499, 500, 999])
def test_loss_and_optimizer_can_be_built_at_every_step(cfg, step):
    assert callable(config.at_step(cfg.loss, step, num_steps=1000))
    assert callable(config.build(cfg.optimizer, num_steps=1000).update)


def test_training_ends_at_the_radius_that_is_evaluated(name, cfg):
    """And attacks it with steps of a quarter of the radius, or as the paper has it."""
    eps = cfg.evaluation.threat.eps
    assert np.isclose(cfg.evaluation.curve, eps).any()
    fields = {field.path: field.value for field in tree.walk(cfg.loss)}
    radii = [value for path, value in fields.items() if path.endswith("threat.eps")]
    assert bool(radii) == (method_in(name) not in ("standard", "gaussian", "macer", "consistency"))
    for value in radii:
        assert at(value, 999, 1000) == pytest.approx(eps) and 0 <= at(value, 0, 1000) <= eps
    if method_in(name) == "smoothadv":
        assert at(fields["attack.step_size"], 999, 1000) == pytest.approx(2 * eps / fields["attack.num_steps"])
    elif method_in(name) in ("pgd_at", "trades"):
        assert at(fields["attack.step_size"], 999, 1000) == pytest.approx(eps / 4)
        assert fields["attack.num_steps"] == 10


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("trades")], indirect=True)
def test_trades_attacks_the_divergence_from_the_published_start(cfg):
    """Gaussian, 0.001: at x itself the gradient of the divergence is zero. Zhang et al. 2019."""
    attack = cfg.loss.attack
    assert fdl.get_callable(cfg.loss) is trades and cfg.loss.beta == 6.0
    assert attack.objective is kl
    assert fdl.get_callable(attack.start) is starts.gaussian and attack.start.scale == 0.001


def test_docstring_has_its_own_commands(name, docstring):
    where = f"--config=configs/{name}.py --workdir=runs/{name}"
    lines = [line.strip() for line in docstring.splitlines() if line.strip().startswith("python")]
    scripts = ("smoothing",) if method_in(name) in SMOOTHING else ("train", "evaluate")
    assert lines == [f"python experiments/{script}.py {where}" for script in scripts]


def test_docstring_has_a_result_with_interval_and_n_or_says_there_is_none(docstring):
    text = " ".join(docstring.split())
    elsewhere = re.search(r'Measured: see README, "(\w+)"', text)
    said = " ".join((ROOT / "README.md").read_text().split(elsewhere[1], 1)[1:]) if elsewhere else text
    measured = INTERVAL.search(said) and re.search(r"\bn ?= ?\d+|\b\d+ test (images|examples)", said)
    assert bool(measured) != ("The full length has not been run yet." in text)


def test_a_set_that_is_not_prepared_ends_in_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in IMAGES:
        with pytest.raises(DataError, match=f"robustgen prepare {name} --dir={tmp_path}") as error:
            app.resolve(str(ROOT / "configs" / f"{name}_trades.py"))
        assert "\n" not in str(error.value)
