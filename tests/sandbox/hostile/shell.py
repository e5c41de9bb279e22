# Executes commands.
# limits: processes=8
# says: contained
import os
import subprocess

for command in (["/bin/sh", "-c", "echo ESCAPED"], ["/usr/bin/id"], ["bash"], ["bwrap"], ["curl"], ["mount"], ["su"]):
    try:
        print("ESCAPED:", subprocess.run(command, capture_output=True, check=False))
    except OSError:
        pass
if os.system("echo ESCAPED") == 0:
    print("ESCAPED: a shell")
print("contained")
