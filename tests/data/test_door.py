import pytest

from guerdon import data
from guerdon.core.parts import name_of


@pytest.mark.parametrize("name", data.__all__)
def test_every_public_name_is_there_and_says_where_it_is_from(name):
    part = getattr(data, name)
    assert name_of(part) == f"data.{name}"
    assert part.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute sort"):
        data.sort  # noqa: B018
    assert set(data.__all__) <= set(dir(data))
