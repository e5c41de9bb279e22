# Leaves changed modules to the next run.
# times: 2
# says: contained

import json
import sys

if hasattr(json, "mark") or "mark" in sys.modules:
    print("ESCAPED: a module of another run")
json.mark = sys.modules["mark"] = sys
json.dumps = json.loads = lambda *_: 1 / 0
for name in list(sys.modules):
    if name not in ("sys", "builtins", "__main__"):
        sys.modules[name] = None
sys.path[:] = ["/tmp"]
sys.meta_path.clear()
print("contained")
