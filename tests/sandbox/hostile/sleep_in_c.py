# Waits for a signal, with all of them blocked.
# must: deadline
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
signal.sigwait({signal.SIGUSR1})
