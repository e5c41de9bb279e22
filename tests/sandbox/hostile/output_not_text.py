# Prints what is not text.
# says: ���
import os

os.write(1, b"\xff\xfe\x80")
