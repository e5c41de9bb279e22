# Reads more than it is given, from a pipe of its own.
# must: deadline
import os

read, write = os.pipe()
os.read(read, 1)
