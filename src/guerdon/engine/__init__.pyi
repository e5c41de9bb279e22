from .engine import Engine as Engine, default as default, require as require, score as score
