"""How much a file may ask for. Beyond a limit it is refused, before anything of that size is made.

Far above what verification benchmarks hold, far below what harms a machine of 16 GB.
"""

MODEL_BYTES = 2**31  # protobuf's own limit; also of all external data together
TEXT_BYTES = 2**28  # of a property, counterexample, result or list of instances, decompressed

NODES = 20_000  # of a graph
RANK = 16  # axes of a tensor
STORED_ELEMENTS = 2**28  # of a tensor in the file
ELEMENTS = 2**26  # of a tensor that the network computes
FOLDED_ELEMENTS = 2**27  # of all tensors that are computed while a model is read, together
POSITIONS = 2**22  # of a list of positions that is made, as by resizing

DEPTH = 128  # of nested parentheses
TOKENS = 2**23  # of one command in parentheses
VARIABLES = 2**22  # inputs and outputs of a property
DISJUNCTS = 2**16  # of a property in disjunctive normal form
ATOMS = 2**22  # comparisons of all disjuncts together
ENTRIES = 2**26  # numbers in all boxes and clauses together
