# Compiles for ever.
# must: deadline
while True:
    compile("(" * 150 + "x" * 10**5 + ")" * 150, "x", "eval")
