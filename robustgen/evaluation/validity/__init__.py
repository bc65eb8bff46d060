"""Is this evaluation valid? Checks of a model and of how it was attacked, each a pure function to a `Finding`.

`robustgen.validity` runs the attacks that they look at; here nothing attacks.
"""

from robustgen.evaluation.validity import binarization as binarization  # Zimmermann et al. 2022
from robustgen.evaluation.validity import checklist as checklist  # Carlini et al. 2019
from robustgen.evaluation.validity import failures as failures  # Pintor et al. 2022
from robustgen.evaluation.validity import inputs as inputs  # ranges and units
from robustgen.evaluation.validity import outputs as outputs  # AutoAttack's flags
from robustgen.evaluation.validity.finding import Finding as Finding
from robustgen.evaluation.validity.finding import findings_table as findings_table
from robustgen.evaluation.validity.finding import flagged as flagged
