"""Is this evaluation valid? Runs what `evaluation.validity` looks at, and returns its findings."""

from robustgen.validity.evaluated import Evaluated as Evaluated
from robustgen.validity.evaluated import square_at as square_at
from robustgen.validity.evaluated import thorough as thorough
from robustgen.validity.evaluated import thorough_l1 as thorough_l1
from robustgen.validity.suite import validity as validity
