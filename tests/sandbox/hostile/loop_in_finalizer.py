# Ends, but for an object that will not go.
# must: deadline
class Stays:
    def __del__(self):
        while True:
            pass


Stays()
