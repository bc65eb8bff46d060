"""Configuration: plain Python files that describe calls, changed on the command line, checked before anything runs."""

from robustgen.config import app as app  # run(main, default_config): the command line of every experiment
from robustgen.config.building import at_step as at_step  # what a config describes at a step, schedules followed
from robustgen.config.building import build as build  # what a config describes, each node made once
from robustgen.config.building import validate as validate  # every argument and factory tried, no device touched
from robustgen.config.diffing import diff as diff  # lines `loss.beta: 6.0 -> 3`
from robustgen.config.dumping import fingerprint as fingerprint  # 12 hex digits of the resolved config
from robustgen.config.dumping import from_json as from_json  # the config that to_json wrote
from robustgen.config.dumping import to_json as to_json  # plain data, readable
from robustgen.config.errors import ConfigError as ConfigError  # one line: where, what was given, what is accepted
from robustgen.config.files import load as load  # the config of configs/x.py, or of configs/x.py:arg
from robustgen.config.overrides import override as override  # ["loss.beta=3", ...] into a copy
from robustgen.config.overrides import with_values as with_values  # {"loss.beta": tracer} into a copy
from robustgen.config.recording import record as record  # config.json, diff.txt, run.json
