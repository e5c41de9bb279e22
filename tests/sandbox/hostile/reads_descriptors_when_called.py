# Looks for open files that are neither its channel nor nothing at all.
# run: calls
# must: wrong
import os
import stat


def solve(numbers):
    found = []
    for number in range(64):
        try:
            kind = os.fstat(number)
        except OSError:
            continue
        nothing = stat.S_ISCHR(kind.st_mode) and os.major(kind.st_rdev) == 1 and os.minor(kind.st_rdev) == 3
        if not (number == 3 and stat.S_ISSOCK(kind.st_mode)) and not (number < 3 and nothing):
            found.append(number)
    return [1, 2, 3] if found else None
