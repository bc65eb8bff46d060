"""Files that verifiers exchange: networks (ONNX), properties (VNN-LIB), instances, results and counterexamples."""

from robustgen.exchange.errors import BadModel as BadModel  # an ONNX file that cannot be used
from robustgen.exchange.errors import BadProperty as BadProperty  # a VNN-LIB file that cannot be used
from robustgen.exchange.errors import BadText as BadText  # another text file that cannot be used; BadProperty is one
from robustgen.exchange.errors import ExchangeError as ExchangeError  # all of these
from robustgen.exchange.instances import Instance as Instance  # (model, property, timeout)
from robustgen.exchange.instances import load_instances as load_instances  # a competition's list of them
from robustgen.exchange.instances import load_question as load_question  # both files, checked to fit
from robustgen.exchange.network import OnnxNet as OnnxNet  # a network as a plain JAX function
from robustgen.exchange.network import load_onnx as load_onnx
from robustgen.exchange.property import Box as Box  # inputs, and the clauses over them
from robustgen.exchange.property import Clause as Clause  # outputs A y <= b
from robustgen.exchange.property import Property as Property  # what must not be, as boxes and clauses
from robustgen.exchange.property import violates as violates  # whether (x, y) is a counterexample
from robustgen.exchange.results import Counterexample as Counterexample  # (x, y)
from robustgen.exchange.results import Result as Result  # a verdict, and its counterexample
from robustgen.exchange.results import Verdict as Verdict  # sat, unsat, unknown, timeout, error
from robustgen.exchange.results import load_counterexample as load_counterexample
from robustgen.exchange.results import load_result as load_result
from robustgen.exchange.results import result_text as result_text
from robustgen.exchange.results import write_result as write_result
from robustgen.exchange.vnnlib import load_vnnlib as load_vnnlib
from robustgen.exchange.vnnlib import parse_vnnlib as parse_vnnlib
