import sys

import pytest

from guerdon.algebra import reward, spec
from guerdon.core.errors import MissingExtra, SpecError
from guerdon.core.extras import needs
from guerdon.rewards import format, text

PARTS = [
    (text.bleu, "sacrebleu", "text", {}),
    (text.chrf, "sacrebleu", "text", {}),
    (text.rouge, "rouge_score", "text", {}),
    (text.rouge, "rapidfuzz", "text", {}),
    (text.edit, "rapidfuzz", "text", {}),
    (text.wer, "jiwer", "text", {}),
    (text.cer, "jiwer", "text", {}),
    (format.schema, "jsonschema", "format", {}),
    (format.json, "jsonschema", "format", {"schema": {}}),
    (format.language, "py3langid", "format", {"languages": ("en",)}),
]


def test_a_part_is_built_where_its_modules_are():
    @reward(range=(0, 1), requires=needs("mine", "json", "re", extra="text"))
    def mine(completion):
        return 1.0

    assert mine().requires == {"completion"}


@pytest.mark.parametrize(
    ("part", "module", "extra", "options"), PARTS, ids=[f"{p.__name__}-{m}" for p, m, _, _ in PARTS]
)
def test_a_missing_extra_is_missed_when_the_part_is_built(part, module, extra, options, monkeypatch):
    assert part(**options)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{part.name} (with a schema )?needs .*pip install 'guerdon\[{extra}\]'"):
        part(**options)
    with pytest.raises(SpecError, match=rf"guerdon\[{extra}\]"):
        spec.load({"part": part.name, **options})
