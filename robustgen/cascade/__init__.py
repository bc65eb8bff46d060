"""Attacks one after the other on the examples still standing, slot by slot, resumable."""

from robustgen.cascade.journal import JournalError as JournalError  # it is of another evaluation
from robustgen.cascade.whole import CERTIFIED as CERTIFIED  # broken_by: verified before any attack
from robustgen.cascade.whole import STANDING as STANDING  # broken_by: nobody
from robustgen.cascade.whole import WRONG as WRONG  # broken_by: misclassified as it is
from robustgen.cascade.whole import Evaluation as Evaluation  # columns, x_adv, stages, spent
from robustgen.cascade.whole import evaluate as evaluate  # a cascade on a data set
