# Returns lists that hold themselves, and ones too deep to read.
# run: calls
# must: raised
def solve(numbers):
    held = []
    for _ in range(10**5):
        held = [held]
    numbers.append(numbers)
    return held
