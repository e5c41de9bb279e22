# Computes for ever with numbers of unheard-of size.
# must: deadline
import decimal

decimal.getcontext().prec = 10**6
decimal.getcontext().Emax = 10**17
while True:
    decimal.Decimal(2).ln()
