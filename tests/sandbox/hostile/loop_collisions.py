# Fills a dict with keys of one hash.
# must: deadline
{(2**61 - 1) * k: k for k in range(10**6)}
