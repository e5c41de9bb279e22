# Recurses until it may not.
# says: contained
def deeper():
    return deeper()


try:
    deeper()
except RecursionError:
    print("contained")
