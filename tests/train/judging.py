"""Judges for recipes of the tests, by rule: what a user names with --allow-import."""


def longer(questions):
    """Of two completions, the longer wins."""
    return [(len(q["first"]), len(q["second"])) for q in questions]


def full_marks(questions):
    """Two points of two."""
    return ["<final_score>2,2</final_score>"] * len(questions)


def states(questions):
    """Whether a piece states the answer: where it has a digit."""
    return [float(any(c.isdigit() for c in str(q))) for q in questions]


def brief(questions):
    """A rating of 0.5 for everything."""
    return [0.5] * len(questions)
