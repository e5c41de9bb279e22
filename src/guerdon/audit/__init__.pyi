from . import diversity as diversity, theory as theory
