# Looks for what the environment says, in Python's copy and in the process's own.
# says: contained
import ctypes
import os

known = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONUTF8", "LC_CTYPE"}
known |= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"}
environ, names, i = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"), set(os.environ), 0
while environ and environ[i]:
    names.add(environ[i].partition(b"=")[0].decode())
    i += 1
print("contained" if names <= known else f"ESCAPED: {names - known}")
