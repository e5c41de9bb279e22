import json
import urllib.request
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from guerdon.algebra import spec
from guerdon.core.errors import Abstain, SpecError
from guerdon.rewards import format

GOOD = "<think>6 · 7</think>\n<answer>42</answer>"


def score(text, *names, **options):
    return format.tags(*(names or ("think", "answer")), **options).evaluate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        (f"  {GOOD}\n", 1.0),
        ("<think>6 < 7 </p></think><answer>42</answer>", 1.0),
        ("<answer>42</answer><think>6 · 7</think>", 0.0),
        ("<think>6 · 7</think>", 0.0),
        ("<think>6 · 7<answer>42</answer></think>", 0.0),
        ("<think>6 · 7<answer></think>42</answer>", 0.0),
        ("<think></think><answer>42</answer>", 0.0),
        ("<think>6 · 7</think><answer>\n</answer>", 0.0),
        ("<think>6 · 7</think><answer>42", 0.0),
        ("<think>6 · 7</think><answer>41</answer><answer>42</answer>", 0.0),
        ("<think>6</think><think>7</think><answer>42</answer>", 0.0),
        ("</think><think>6 · 7<answer>42</answer>", 0.0),
        (f"Sure! {GOOD}", 0.0),
        (f"{GOOD} Done.", 0.0),
        ("<think>6 · 7</think> so <answer>42</answer>", 0.0),
        ("<Think>6 · 7</Think><answer>42</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_exactly_these_tags(text, expected):
    assert score(text) == expected


def test_text_outside_may_be_accepted():
    assert score(f"Sure! {GOOD} Done.", outside="accept") == 1.0
    assert score("Sure! <answer>42</answer>", outside="accept") == 0.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (GOOD, 1.0),
        ("<answer>42</answer>", 0.5),
        ("so <answer>42</answer><think>6 · 7</think>", 1.0),
        ("<think>6 · 7</think><answer>41</answer><answer>42</answer>", 0.5),
        ("<think>6 · 7<answer>42</answer></think>", 0.5),
        ("<think></think><answer>42", 0.0),
    ],
)
def test_each_tag_may_earn_its_share(text, share):
    assert score(text, credit="each") == share


def test_a_chat_and_another_name():
    assert score([{"role": "assistant", "content": "<tool_call>{}</tool_call>"}], "tool_call") == 1.0


@pytest.mark.parametrize("names", [(), ("a", "a"), ("<a>",), ("a b",), ("",)])
def test_names_that_make_no_sense(names):
    with pytest.raises(ValueError, match="names of different tags"):
        format.tags(*names).evaluate(GOOD)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "]), max_size=8).map("".join))
def test_full_marks_are_for_one_shape_only(text):
    pattern = (
        text.replace("<think>", "T")
        .replace("</think>", "t")
        .replace("<answer>", "A")
        .replace("</answer>", "a")
        .replace(" ", "")
    )
    right = pattern.lstrip("T").startswith("x") and [*filter(None, pattern.split("x"))] == ["T", "tA", "a"]
    assert score(text) == right


def test_called_as_trl_calls_a_reward_function():
    assert format.tags("think", "answer")(prompts=["?"] * 2, completions=[GOOD, "42"]) == [1.0, 0.0]


# template

THOUGHT, ANSWERED = "6 · 7</think> It is 42.", "6 · 7</think>\n<answer>42</answer>"


@pytest.mark.parametrize(
    ("text", "answer", "opening"),
    [
        (f"<think>{THOUGHT}", "text", "written either"),
        (f" \n<think>{THOUGHT}\n", "text", "written either"),
        (THOUGHT, "text", "prefilled either"),
        (f"\n{THOUGHT}", "text", "prefilled either"),
        (f"<think>{ANSWERED}", "tag", "written either"),
        (ANSWERED, "tag", "prefilled either"),
        (f"<think>{ANSWERED}", "text", "written either"),
        (f"<think>{THOUGHT}", "tag", ""),
        (f"<think>{ANSWERED} Done.", "tag", ""),
        (f"<think>6</think> so {ANSWERED.partition('</think>')[2]}", "tag", ""),
        ("<think>6 · 7</think>", "text", ""),
        ("<think>6 · 7</think><answer> </answer>", "tag", ""),
        ("<think> </think> It is 42.", "text", ""),
        ("</think> It is 42.", "text", ""),
        ("It is 42.", "text", ""),
        ("<think>It is 42.", "text", ""),
        (f"Well, <think>{THOUGHT}", "text", ""),
        (f"<think><think>{THOUGHT}", "text", ""),
        (f"<think>{THOUGHT}</think>", "text", ""),
        (f"<think>{THOUGHT} <think>7</think> 42", "text", ""),
        ("", "text", ""),
    ],
    ids=range(21),
)
def test_thinking_and_then_an_answer(text, answer, opening):
    for option in ("written", "prefilled", "either"):
        assert format.template(answer=answer, opening=option).evaluate(text) == (option in opening.split()), option


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "]), max_size=8).map("".join))
def test_a_prefilled_template_is_the_written_one_without_its_beginning(text):
    for answer in ("text", "tag"):
        written = format.template(answer=answer).evaluate("<think>" + text)
        assert format.template(answer=answer, opening="prefilled").evaluate(text) == written or text.strip().startswith(
            "<think>"
        )


# json


def told(leaf, *columns):
    number, details = leaf.evaluate(*columns)
    assert (details["problem"] is None) == (number == 1.0)
    return number


@pytest.mark.parametrize(
    ("text", "reply", "block", "either"),
    [
        ('{"a": [1, true, null]}', 1, 0, 1),
        (" 42\n", 1, 0, 1),
        ('<think>{</think>"text"', 1, 0, 1),
        ("Here:\n```json\n[1]\n```\nDone.", 0, 1, 1),
        ("```\n{\n```\n```\n{}\n```", 0, 1, 1),
        ("```\n{}\n```\n```\n{\n```", 0, 0, 0),
        ("Here: [1]", 0, 0, 0),
        ("{'a': 1}", 0, 0, 0),
        ('{"a": 1,}', 0, 0, 0),
        ('{"a": 1', 0, 0, 0),
        ("[1] [2]", 0, 0, 0),
        ("None", 0, 0, 0),
        ("<think>[1]", 0, 0, 0),
        ("", 0, 0, 0),
    ],
    ids=range(14),
)
def test_valid_json_where_it_is_wanted(text, reply, block, either):
    found = [told(format.json(within=within), text) for within in ("reply", "code_block", "either")]
    assert found == [reply, block, either]


def test_what_some_readers_accept():
    for text, option in (('{"a": 1, "a": 1}', "duplicates"), ("[NaN]", "nan"), ('{"a": -Infinity}', "nan")):
        assert told(format.json(), text) == 0.0
        assert told(format.json(**{option: "accept"}), text) == 1.0
    assert format.json().evaluate('{"a": 1, "a": 1}')[1] == {"problem": "the key 'a' stands twice in one object"}


def test_what_stands_at_the_top():
    texts = {"object": "{}", "array": "[]", "neither": "42"}
    for top, (kind, text) in product(("any", "object", "array"), texts.items()):
        assert told(format.json(top=top), text) == (top in ("any", kind))


def test_depth_and_size_break_nothing():
    assert told(format.json(), "[" * 64 + "]" * 64) == 1.0
    for text in ("[" * 65 + "]" * 65, "[" * 100_000, '{"a":' * 50_000):
        assert told(format.json(), text) == 0.0
    assert told(format.json(), "[" + "9" * 100_000 + "]") == 1.0


# schema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def fits(text, schema, **options):
    return told(format.schema(**options), text, schema)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada"}', 1),
        ('{"name": "Ada", "age": 36}', 1),
        ('{"name": "Ada", "age": 36.0}', 1),
        ('```json\n{"name": "Ada"}\n```', 1),
        ('{"age": 36}', 0),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "age": true}', 0),
        ('{"name": "Ada", "age": "36"}', 0),
        ('{"name": "Ada", "born": 1815}', 0),
        ('[{"name": "Ada"}]', 0),
        ('{"name": "Ada"', 0),
        ("Ada", 0),
        ("", 0),
    ],
    ids=range(13),
)
def test_a_reply_fits_its_schema(text, expected):
    assert fits(text, PERSON) == fits(text, json.dumps(PERSON)) == expected


def test_one_schema_for_all_rows():
    leaf = format.json(schema=PERSON)
    assert [told(leaf, text) for text in ('{"name": "Ada"}', '{"name": 7}', "[]", "Ada")] == [1, 0, 0, 0]
    assert told(format.json(schema={"minimum": 1}, top="object"), "2") == 0.0
    assert spec.load(spec.dump(leaf)) == leaf
    with pytest.raises(ValueError, match="schema not valid"):
        format.json(schema={"type": "nonsense"})
    with pytest.raises(Abstain, match="not there"):
        format.json(schema={"$ref": "other.json"}).evaluate("1")


def test_where_a_reply_does_not_fit_is_told():
    assert format.schema().evaluate('{"name": 7}', PERSON) == (0.0, {"problem": "$.name: 7 is not of type 'string'"})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (None, "schema missing: None"),
        ("", "schema missing: ''"),
        (7, "schema missing: 7"),
        ([], "schema missing"),
        ("{", "schema not JSON"),
        ("[1]", "schema not a mapping"),
        ({"type": "nonsense"}, "schema not valid: "),
        ({"minimum": "1"}, "schema not valid: "),
        ({"a": {1, 2}}, "schema not JSON"),
    ],
    ids=range(9),
)
def test_a_schema_that_is_none_is_an_abstention(schema, reason):
    for text in ("1", "not JSON"):
        with pytest.raises(Abstain, match=reason):
            format.schema().evaluate(text, schema)


def test_a_schema_that_breaks_in_use_is_an_abstention():
    fourth = "http://json-schema.org/draft-04/schema#"  # which lets any text stand for a pattern
    broken = {"$ref": "#/$defs/none"}, {"$schema": fourth, "patternProperties": {"(": {}}}, {"$ref": "#"}
    for schema, reason in zip(broken, ("not there", "no regular expression", "without end"), strict=True):
        with pytest.raises(Abstain, match=reason):
            format.schema().evaluate('{"a": 1}', schema)


def test_nothing_is_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, *_, **__: fetched.append(request))
    for reference in ("http://localhost:1/schema.json", "file:///etc/hostname", "other.json"):
        with pytest.raises(Abstain, match="not there"):
            format.schema().evaluate("1", {"$ref": reference})
    assert fetched == []


def test_references_within_and_older_drafts():
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert fits("[[], [[]]]", tree) == 1.0
    assert fits("[[], [1]]", tree) == 0.0
    assert fits("[" * 64 + "]" * 64, tree) == 1.0
    assert fits("[" * 65 + "]" * 65, tree) == 0.0
    fourth = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
    assert [fits(text, fourth) for text in ("1", "2")] == [0.0, 1.0]
    assert fits("1", True) == 1.0
    assert fits("1", "false") == 0.0


# regex


def test_a_pattern_matches_all_or_some_of_the_text():
    whole, anywhere = format.regex(pattern=r"a\d+"), format.regex(pattern=r"a\d+", match="search")
    assert [leaf.evaluate(text) for leaf in (whole, anywhere) for text in ("a12", "ba12c", "a12\n", "b")] == [
        1,
        0,
        0,
        0,
        1,
        1,
        1,
        0,
    ]
    assert format.regex(pattern="(?s)<think>.*</think>.*").evaluate("<think>\n</think>\n") == 1.0
    assert format.regex(pattern=r"\d", within="answer_tag").evaluate("1 <answer>2</answer>") == 1.0
    assert format.regex(pattern="", within="boxed").evaluate("") == 0.0


def test_a_pattern_is_checked_when_it_is_given():
    for pattern in ("(", "*", "(?P<a", "a{2,1}"):
        with pytest.raises(ValueError, match="is no regular expression"):
            format.regex(pattern=pattern)
    with pytest.raises(SpecError, match=r"reward: the pattern '\(' is no regular expression"):
        spec.load({"part": "format.regex", "pattern": "("})


# keywords


def holds(text, **options):
    return format.keywords(**options).evaluate(text)


@pytest.mark.parametrize(
    ("text", "options", "share"),
    [
        ("Start with art.", {"required": ("art",)}, 1),
        ("Start.", {"required": ("art",)}, 0),
        ("Start.", {"required": ("art",), "match": "text"}, 1),
        ("ART", {"required": ("art",)}, 1),
        ("ART", {"required": ("art",), "case": True}, 0),
        ("a b", {"required": ("a", "b", "c")}, 2 / 3),
        ("a b", {"forbidden": ("a", "c")}, 1 / 2),
        ("a a b", {"counts": {"a": (2, 3), "b": (2, 2), "c": (0, 0)}}, 2 / 3),
        ("a a b", {"required": ("b",), "forbidden": ("c",), "counts": {"a": (1, 1)}}, 2 / 3),
        ("C++ it is", {"required": ("c++",)}, 1),
        ("new  york", {"required": ("new york",)}, 0),
        ("new  york", {"required": (r"new\s+york",), "match": "patterns"}, 1),
        ("aXb", {"required": ("(?s)a.b",), "match": "patterns"}, 1),
        ("a.b", {"required": ("a.b",), "forbidden": ("axb",)}, 1),
        ("axb", {"required": ("a.b",)}, 0),
        ("北京是首都", {"required": ("北京",)}, 0),
        ("北京是首都", {"required": ("北京",), "match": "text"}, 1),
        ("<think>maybe</think>yes", {"forbidden": ("maybe",)}, 1),
        ("<think>maybe</think>yes", {"forbidden": ("maybe",), "within": "completion"}, 0),
        ("", {"forbidden": ("maybe",)}, 0),
        (" \n", {"forbidden": ("maybe",)}, 0),
        ("<think>a", {"forbidden": ("maybe",)}, 0),
    ],
    ids=range(22),
)
def test_keywords(text, options, share):
    assert holds(text, **options, credit="share") == pytest.approx(share)
    assert holds(text, **options) == float(share == 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "got nothing"),
        ({"required": ("a", " ")}, "not blank"),
        ({"required": "abc"}, "lists of words"),
        ({"required": ("(",), "match": "patterns"}, "no regular expression"),
        ({"counts": {"a": (2, 1)}}, "least to most"),
        ({"counts": {"a": (-1, 1)}}, "least to most"),
    ],
    ids=range(6),
)
def test_conditions_that_make_no_sense(options, problem):
    with pytest.raises(ValueError, match=problem):
        format.keywords(**options)


# repetition


def penalty(text, **options):
    return format.repetition(**options).evaluate(text)


def test_repetition_by_hand():
    assert penalty("a b c a b c a b") == pytest.approx(-(1 - 3 / 6))  # abc bca cab abc bca cab
    assert penalty("a b c a b c a b", size=1) == pytest.approx(-(1 - 3 / 8))
    assert penalty("a b c d") == 0.0
    assert penalty("a b") == penalty("") == penalty("<think>", within="reply") == 0.0
    assert penalty("The the", size=1) == -0.5
    assert penalty("The the", size=1, case=True) == 0.0
    assert penalty("哈哈哈哈", size=1) == 0.0
    assert penalty("哈哈哈哈", size=1, unit="characters") == -0.75
    assert penalty("x " * 100, measure="longest") == -0.99
    assert penalty("a b c a b d", measure="longest") == pytest.approx(-2 / 6)
    assert penalty("", measure="longest") == 0.0
    assert format.repetition().range == (-1.0, 0.0)
    with pytest.raises(ValueError, match="size of at least 1"):
        format.repetition(size=0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=14), st.integers(1, 4))
def test_repetition_from_its_definition(words, size):
    text = " ".join(words)
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    expected = len(set(grams)) / len(grams) - 1 if grams else 0.0
    assert penalty(text, size=size) == pytest.approx(expected)
    stretches = Counter(tuple(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    longest = max((len(stretch) for stretch, times in stretches.items() if times > 1), default=0)
    assert penalty(text, measure="longest") == pytest.approx(-longest / len(words) if words else 0.0)
    assert penalty("".join(words), measure="longest", unit="characters") == penalty(text, measure="longest")


def test_a_long_text_is_measured():
    words = [str(i) for i in range(20_000)]
    assert penalty(" ".join(words + words[:5_000]), measure="longest") == -0.2


# language

ENGLISH = "The sum of the two numbers is even, because both of them are odd."
GERMAN = "Die Summe der beiden Zahlen ist gerade, weil beide ungerade sind."
CHINESE = "这两个数的和是偶数,因为它们都是奇数。"
RUSSIAN = "Сумма этих двух чисел чётна, потому что оба они нечётны."


def spoken(text, *languages, **options):
    return format.language(*languages, **options).evaluate(text)[0]


@pytest.mark.parametrize(
    ("code", "text"), [("en", ENGLISH), ("de", GERMAN), ("zh", CHINESE), ("ru", RUSSIAN)], ids=["en", "de", "zh", "ru"]
)
def test_a_text_is_in_its_language(code, text):
    among = ("en", "de", "zh", "ru")
    for other in among:
        for credit in ("verdict", "share"):
            assert spoken(text, other, among=among, credit=credit) == float(other == code)
    assert format.language(code, among=among).evaluate(text)[1] == {"language": code}
    total = [spoken(text, other, among=among, credit="probability") for other in among]
    assert sum(total) == pytest.approx(1.0, abs=1e-5)
    assert spoken(text, *among, among=among, credit="probability") == pytest.approx(1.0, abs=1e-5)
    assert max(total) == total[among.index(code)]


def test_the_share_counts_words_and_characters_of_chinese():
    english, chinese = 14, 17
    assert sum(word.isalpha() for word in CHINESE) == chinese
    assert len(ENGLISH.split()) == english
    mixed = f"{ENGLISH} {CHINESE}"
    assert spoken(mixed, "en", credit="share", among=("en", "zh")) == pytest.approx(english / (english + chinese))
    assert spoken(mixed, "zh", credit="share", among=("en", "zh")) == pytest.approx(chinese / (english + chinese))
    assert spoken(mixed, "en", "zh", credit="share", among=("en", "zh")) == 1.0


def test_a_switch_within_a_sentence_and_to_a_relative_is_seen():
    within = "The sum of the two numbers 是偶数 because both of them are odd."
    assert spoken(within, "en", credit="share", among=("en", "zh")) == pytest.approx(12 / 15)
    relatives = f"{ENGLISH} {GERMAN} {ENGLISH}"
    assert spoken(relatives, "de", credit="share", among=("en", "de")) == pytest.approx(11 / 39)


def test_what_is_of_no_language_does_not_count():
    for noise in (
        "```python\nfor x in range(3): print(x)\n```",
        r"$\text{otherwise}$",
        "`return None`",
        "https://example.org/a",
    ):
        assert spoken(f"{GERMAN} {noise}", "de", credit="share", among=("en", "de")) == 1.0
        assert format.language("de").evaluate(noise) == (0.0, {"language": None})
    for text in ("", "42", "x = 3", "<think>", "a b c"):
        for credit in ("verdict", "probability", "share"):
            assert spoken(text, "en", credit=credit) == 0.0
    assert spoken(f"<think>{GERMAN}</think>{ENGLISH}", "en", within="reply", credit="share", among=("en", "de")) == 1.0


def test_languages_are_checked_when_they_are_given():
    for languages, options, problem in (
        ((), {}, "wants the languages"),
        (("eng",), {}, "did you mean 'en'"),
        (("en",), {"among": ("de", "xx")}, "no language 'xx'"),
        (("en",), {"among": ("de",)}, "to be among"),
    ):
        with pytest.raises(ValueError, match=problem):
            format.language(*languages, **options)


# all of them

LEAVES = [
    format.template(opening="either"), format.json(), format.json(within="reply", top="object"),
    format.regex(pattern="(?s).*x.*"), format.keywords(required=("x",), counts={"a": (0, 1)}, credit="share"),
    format.repetition(), format.repetition(measure="longest", unit="characters"), format.language("en", "zh"),
    format.language("en", credit="share"), format.language("en", credit="probability", among=("en", "fr")),
]  # fmt: skip
PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "```", "\n", "{", "}", "[", "]", '"a"', ":", ",", "1", "NaN", "x ",
    "hello there ", "北京", "$", "\\(", "\ud800", "\u0301",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | st.characters(codec=None), max_size=20).map("".join)


@pytest.mark.parametrize("leaf", LEAVES, ids=range(len(LEAVES)))
@settings(max_examples=80, deadline=None)
@given(text=TEXT)
def test_any_text_scores_in_the_range(leaf, text):
    returned = leaf.evaluate(text)
    number = returned[0] if isinstance(returned, tuple) else returned
    low, high = leaf.range
    assert low <= number <= high


@settings(max_examples=80, deadline=None)
@given(TEXT)
def test_any_text_fits_a_schema_or_not(text):
    assert fits(text, {"type": ["object", "number"]}) in (0.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda i: st.lists(i, max_size=3), max_leaves=6))
def test_what_is_json_is_told_from_what_is_not(value):
    text = json.dumps(value)
    assert told(format.json(), text) == 1.0
    assert told(format.json(), f"```\n{text}\n```") == 1.0
    assert told(format.json(), text + "]") == 0.0


@pytest.mark.parametrize("leaf", [*LEAVES, format.schema(within="code_block")], ids=range(len(LEAVES) + 1))
def test_specs_hold_them(leaf):
    assert spec.load(spec.dump(leaf)) == leaf
    assert hash(spec.load(spec.dump(leaf))) == hash(leaf)


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_long_texts_are_read(piece):
    text = piece * (20_000 // len(piece))
    for leaf in LEAVES:
        leaf.evaluate(text)


def test_columns_as_trl_gives_them():
    found = format.schema()(prompts=["?"] * 3, completions=["1", '"a"', "1"], schema=[{"type": "integer"}] * 2 + [None])
    assert found == [1.0, 0.0, None]
    assert format.language("en")(prompts=["?"], completions=[[{"role": "assistant", "content": ENGLISH}]]) == [1.0]


def test_words_that_sentences_take_apart_are_in_the_language_of_the_whole():
    share, verdict = (format.language("en", credit=credit).evaluate("A！A")[0] for credit in ("share", "verdict"))
    assert share == verdict
    assert format.language("en", credit="share").evaluate("A!A")[0] in (0.0, 1.0)
