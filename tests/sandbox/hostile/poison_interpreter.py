# Leaves a changed interpreter to the next run: builtins, guerdon's own code, hooks.
# times: 2
# must: exit signal

import builtins
import sys

from guerdon.sandbox.inside import calls, channel, kernel, plain, program, zygote

if hasattr(builtins, "mark") or hasattr(plain, "mark"):
    print("ESCAPED: builtins of another run")
say = print
builtins.mark = plain.mark = True
for module in (calls, channel, kernel, plain, program, zygote):
    for name in list(vars(module)):
        if not name.startswith("__"):
            setattr(module, name, None)
sys.settrace(lambda *_: None)
sys.setrecursionlimit(60)
sys.setswitchinterval(100)
sys.addaudithook(lambda *_: None)
builtins.print = builtins.compile = builtins.sorted = lambda *_, **__: 1 / 0
say("contained")
