# Opens files until it may not.
# says: contained
held = []
try:
    while len(held) < 1000:
        held.append(open("/dev/null"))
except OSError:
    pass
print("contained" if len(held) < 64 else f"ESCAPED: {len(held)} files")
