"""The command `robustgen`: what one can do here, preparing data, and a look at the machine.

Every error is one line on stderr and exit code 2. Nothing heavy is imported before a command needs it.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile

WELCOME = """\
robustgen: train, attack and certify models, and measure robustness and generalization side by side.

  python experiments/quickstart.py                         the trade-off on digits, in under two minutes
  python experiments/train.py --config=configs/FILE.py --workdir=runs/NAME
                                                           train one recipe; any field: --config.loss.beta=3
  robustgen prepare mnist --dir=DATA                       prepare a TFDS data set, once (fashion_mnist, cifar10, ...)
  robustgen doctor --dir=DATA                              versions, devices, memory, data, cache
  robustgen verify NET.onnx PROPERTY.vnnlib --timeout=300  sat with a counterexample, unsat, timeout or unknown
"""

PACKAGES = (
    "jax jaxlib flax optax chex orbax-checkpoint fiddle numpy scipy scikit-learn tensorflow-datasets array_record "
    "tensorflow tensorflow-cpu matplotlib torch"
).split()


class Parser(argparse.ArgumentParser):
    """Refuses a command line in one line. Subcommands' parsers are of this class too."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code (2 for anything the user can put right)."""
    args = parser().parse_args(argv)
    if args.run is None:
        print(WELCOME, end="")
        return 0
    from robustgen.data.source import DataError  # and JAX with it: a second that help and typing errors need not wait
    from robustgen.exchange.errors import ExchangeError

    try:
        return args.run(args) or 0
    except (DataError, ExchangeError) as error:
        print(f"robustgen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("robustgen: stopped", file=sys.stderr)
        return 130


def parser() -> Parser:
    """The command line: `robustgen`, `robustgen prepare NAME [--dir=DIR]`, `robustgen doctor [--dir=DIR]`, ..."""
    top = Parser(prog="robustgen", description=WELCOME, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.set_defaults(run=None)
    commands = top.add_subparsers(metavar="COMMAND")
    folder = "TFDS data folder (default: TFDS_DATA_DIR, then ~/tensorflow_datasets)"
    for name, run, words in (
        ("prepare", _prepare, "download a TFDS data set and write it as array_record (needs the extra [tf])"),
        ("doctor", _doctor, "print versions, devices, memory, prepared data, and whether the cache can be written"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("--dir", help=folder)
        command.set_defaults(run=run)
        if name == "prepare":
            command.add_argument("name", metavar="NAME", help="mnist, cifar10, cifar10_corrupted/fog_1, ...")
    _add_verify(commands)
    return top


def _add_verify(commands) -> None:
    words = "answer whether a network violates a property: sat, unsat, timeout or unknown"
    codes = "exit code: 0 for sat and unsat, 1 for timeout and unknown, 2 for files that cannot be used"
    command = commands.add_parser("verify", help=words, description=f"{words}; {codes}")
    command.add_argument("model", metavar="NET.onnx", help="opset 7 to 22, may be gzipped (needs the extra [onnx])")
    command.add_argument("property", metavar="PROPERTY.vnnlib", help="VNN-LIB 1.0, may be gzipped")
    command.add_argument("--timeout", type=_seconds, default=300.0, help="seconds, starting up not counted (300)")
    command.add_argument("--out", help="file for the result, in the competition's format; stdout has it in any case")
    command.add_argument("--state", help="file for what is open: the same command goes on from it")
    command.add_argument("--split", choices=("neurons", "inputs"), help="default: by the number of inputs")
    command.add_argument("--seed", type=int, default=0, help="of the search for counterexamples (0)")
    command.add_argument("--quiet", action="store_true", help="no lines of progress on stderr")
    command.set_defaults(run=_verify)


def _seconds(text: str) -> float:
    """A positive number of seconds, which argparse reports in one line where it is not."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number of seconds above 0; got {text}")
    return seconds


def _verify(args: argparse.Namespace) -> int:
    from robustgen.verify import from_command_line

    return from_command_line(args)


def _prepare(args: argparse.Namespace) -> None:
    from robustgen.data.catalogue import data_dir
    from robustgen.data.prepare import prepare

    found = prepare(args.name, data_dir(args.dir))
    sizes = ", ".join(f"{split} {size}" for split, size in found.sizes.items())
    print(f"{found.name} {found.version} is prepared in {found.folder}: {sizes}; images {found.shape} {found.dtype}")


def _doctor(args: argparse.Namespace) -> None:
    rows = [("python", f"{platform.python_version()} on {platform.platform()}")]
    rows += [(name, version) for name in PACKAGES if (version := _version(name))]
    rows += [("memory", _memory()), ("processors", str(_processors()))]
    rows += [("devices", line) for line in _devices()]
    rows += [("data", line) for line in _data(args.dir)]
    rows += [("cache", _cache())]
    for name, value in rows:
        print(f"{name:22}{value}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processors() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> str:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def _devices() -> list[str]:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:  # a back end that JAX_PLATFORMS names and that does not start
        return [f"none: {' '.join(str(error).split())[:200]}"]
    return [f"{d.platform}:{d.id} {d.device_kind}{_device_memory(d)}" for d in devices]


def _device_memory(device) -> str:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return f", {limit / 2**30:.1f} GiB" if limit else ""


def _data(dir: str | None) -> list[str]:
    from robustgen.data.catalogue import data_dir, folders_in

    root = data_dir(dir)
    if not root.is_dir():
        return [f"{root}: no such folder (give --dir or TFDS_DATA_DIR)"]
    found = [str(folder.relative_to(root)) for folder in folders_in(root)]
    return [f"{root}: {', '.join(found) or 'nothing prepared'}"]


def _cache() -> str:
    from robustgen.data.cache import cache_dir

    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"robustgen")
    except OSError as error:
        return f"{folder}: cannot be written ({error.strerror}); set ROBUSTGEN_CACHE to a folder that can"
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return f"{folder}: can be written, holds {size / 2**20:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
