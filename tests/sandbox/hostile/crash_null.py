# Reads from nowhere.
# must: signal
import ctypes

ctypes.string_at(0)
