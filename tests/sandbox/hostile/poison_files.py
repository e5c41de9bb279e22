# Leaves files where the next run's interpreter would look for them.
# times: 2
# says: contained

import os

found = [os.path.join(folder, name) for folder, _, names in os.walk("/tmp") for name in names]
if found or os.listdir("/tmp"):
    print("ESCAPED:", found)
for path in (
    "mark.py",
    "sitecustomize.py",
    "usercustomize.py",
    "json.py",
    "__pycache__/json.cpython-311.pyc",
    ".local/lib/python3.11/site-packages/usercustomize.py",
    ".pth",
):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write("print('ESCAPED: imported')")
print("contained")
