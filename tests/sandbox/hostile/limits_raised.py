# Raises its own limits, and those of others.
# says: contained
import resource

for kind in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "SIGPENDING", "CORE", "MEMLOCK", "MSGQUEUE"):
    number = getattr(resource, f"RLIMIT_{kind}", 11)
    soft, hard = resource.getrlimit(number)
    if hard == resource.RLIM_INFINITY:
        print("ESCAPED: no limit on", kind)
    for value in (hard + 1, resource.RLIM_INFINITY):
        for change in (resource.setrlimit, lambda n, pair: resource.prlimit(1, n, pair)):
            try:
                change(number, (value, value))
                print("ESCAPED: a higher limit on", kind)
            except (ValueError, PermissionError):
                pass
print("contained")
