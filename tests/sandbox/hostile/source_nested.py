# Source that no parser gets through.
# must: exit signal deadline
# deadline: 2.0
for text in ("(" * 10**6, "-" * 10**6 + "1", "[" * 90 + "]" * 90, "x" + ".x" * 10**5, "f(" * 10**5, "\0", "\ud800"):
    try:
        compile(text, "x", "eval")
    except (SyntaxError, MemoryError, RecursionError, ValueError):
        pass
