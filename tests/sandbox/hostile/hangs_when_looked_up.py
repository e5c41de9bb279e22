# Computes for ever when its method is looked up.
# run: calls
# must: late
class Solution:
    def __getattr__(self, name):
        while True:
            pass
