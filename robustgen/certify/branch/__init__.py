"""Complete verification: branch and bound over neurons or over parts of the input, with counterexamples."""

from robustgen.certify.branch.boxes import halves as halves  # splits the input's box
from robustgen.certify.branch.certifier import branch_and_bound as branch_and_bound  # classes, outside of jit
from robustgen.certify.branch.domains import Claims as Claims  # what is to be proved
from robustgen.certify.branch.falsify import descents as descents  # the search for counterexamples
from robustgen.certify.branch.neurons import neurons as neurons  # splits neurons: alpha-beta-CROWN
from robustgen.certify.branch.prove import Prover as Prover
from robustgen.certify.branch.prove import prover as prover
from robustgen.certify.branch.prove import settle as settle  # proves or refutes claims
from robustgen.certify.branch.search import Progress as Progress
from robustgen.certify.branch.search import Settled as Settled
from robustgen.certify.branch.search import StateError as StateError  # a file of open domains that cannot be used
from robustgen.certify.branch.search import Status as Status
