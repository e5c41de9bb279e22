# Wants its memory to be kept on some disk when it crashes.
# says: contained
import resource

for limit in (4096, 1 << 30, resource.RLIM_INFINITY):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        print("ESCAPED: a core of", limit, "bytes")
    except (ValueError, OSError):
        pass
if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):  # 0 would not hold where cores go to a program
    print("ESCAPED: a core that is piped")
print("contained")
