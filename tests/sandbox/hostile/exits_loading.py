# Ends before it is asked, with an exception that is none.
# run: calls
# must: raised
raise SystemExit(0)
