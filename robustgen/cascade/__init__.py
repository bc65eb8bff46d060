"""Attacks one after the other on the examples still standing, slot by slot, resumable."""

from robustgen.cascade.evaluate import CERTIFIED as CERTIFIED  # broken_by: verified before any attack
from robustgen.cascade.evaluate import STANDING as STANDING  # broken_by: nobody
from robustgen.cascade.evaluate import WRONG as WRONG  # broken_by: misclassified as it is
from robustgen.cascade.evaluate import Evaluation as Evaluation  # columns, x_adv, stages, spent
from robustgen.cascade.evaluate import evaluate as evaluate  # a cascade on a data set
from robustgen.cascade.journal import JournalError as JournalError  # it is of another evaluation
