# Looks in what it has inherited, objects and frames, for the program that ran before it.
# times: 2
# says: contained
import gc
import sys

values = []
for thing in gc.get_objects():
    if isinstance(thing, dict):
        values += thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        values += thing
frame = sys._getframe()
while frame is not None:
    values += frame.f_locals.values()
    frame = frame.f_back
if any(isinstance(value, str) and value[::-1] == "nur rehto yna fo kram" for value in values):
    print("ESCAPED: a program is remembered")
mark = "".join(reversed("nur rehto yna fo kram"))
print("contained")
