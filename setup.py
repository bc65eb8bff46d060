"""robustgen: train, attack, certify and meta-learn models, and measure robustness and generalization side by side."""

from setuptools import find_packages, setup

PLOTS_AND_DIGITS = ["matplotlib>=3.9", "scikit-learn>=1.5"]  # the report, and the data set that needs no download
WEIGHTS = "safetensors>=0.5"  # weights from elsewhere
ONNX = "onnx>=1.17"  # networks from elsewhere, to verify

setup(
    name="robustgen",
    version="0.1.0",
    description=__doc__.strip(),
    license="Apache-2.0",
    packages=find_packages(include=["robustgen", "robustgen.*"]),
    python_requires=">=3.11,<3.14",
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12,<0.13",
        "optax>=0.2.8",
        "chex>=0.1.92",
        "absl-py>=2",
        "numpy>=2",
        "scipy>=1.14",
        "fiddle>=0.3",
        "orbax-checkpoint>=0.12",
        "tensorflow-datasets>=4.9.10",
        "array_record>=0.8.1",
        "importlib_resources",  # imported by tensorflow-datasets, which does not declare it
        "pillow>=10",
        "tqdm>=4.66",
        *PLOTS_AND_DIGITS,
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", WEIGHTS, ONNX],
        "weights": [WEIGHTS],
        "onnx": [ONNX],
        "tf": ["tensorflow-cpu>=2.18"],  # only to prepare a stock TFDS builder, once
        "cuda": ["jax[cuda13]"],
        "bench": ["torch>=2.4"],  # the benchmarks' other side; certify.py: auto_LiRPA too, see torch_certify.py
    },
    entry_points={"console_scripts": ["robustgen=robustgen.cli:main"]},
)
