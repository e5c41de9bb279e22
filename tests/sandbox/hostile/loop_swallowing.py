# Computes for ever, whatever it is interrupted by.
# must: deadline
while True:
    try:
        while True:
            pass
    except BaseException:
        continue
