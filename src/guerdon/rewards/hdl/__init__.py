"""Generated hardware designs in Verilog: simulated, compared with a golden design, synthesised.

The design is the reply's last Verilog block. It is read before it is simulated: one that prints, ends the
simulation, opens files or refers to anything outside of itself is no design, and gets the floor. Tools (Icarus Verilog,
Yosys) run in the sandbox only; verdicts are read from what the testbench says, in which a design has no part.
A row whose own testbench or golden design cannot be used abstains.
"""

from guerdon.rewards.hdl.equivalence import equivalent
from guerdon.rewards.hdl.hierarchy import hierarchy, improvement
from guerdon.rewards.hdl.likeness import likeness
from guerdon.rewards.hdl.mutants import Mutant, mutants
from guerdon.rewards.hdl.stepped import stepped
from guerdon.rewards.hdl.testing import testbench

__all__ = ["Mutant", "equivalent", "hierarchy", "improvement", "likeness", "mutants", "stepped", "testbench"]
