"""The report: that it says what the files say, and that nothing the model wrote can be more than text."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import example, given, settings, strategies as st

from guerdon.core import tables
from guerdon.train.report import write
from guerdon.train.report.curves import curves, lengths
from guerdon.train.report.headline import Outcome, duration, headline, verdict
from guerdon.train.report.page import embed
from guerdon.train.report.samples import ROWS, samples
from guerdon.train.run import Run

CONFIG = {"name": "sums", "steps": 20, "evaluation": {"accuracy": "math.answer"}}
BEFORE = {"step": 0, "accuracy": 0.24, "ci95": [0.21, 0.27], "mean_length": 11.2, "n": 1024, "lengths": [9, 11, 11, 14]}
AFTER = {"step": 20, "accuracy": 0.71, "ci95": [0.68, 0.74], "mean_length": 6.3, "n": 1024, "lengths": [5, 6, 6, 8]}
NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]></pre></textarea>",
    "\x00\x1b[31m\x7f\r",
    "right\u202e to left \u2028 new line",
    "日本語 🙂 &amp; &lt;",
    "",
    " \n",
]


class Page(HTMLParser):
    """Elements with their attributes and the text inside them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in ("meta", "input", "br", "link", "img"):
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in wanted.items())]

    def texts(self, tag, **attributes):
        return [element["text"].replace("\u00a0", " ") for element in self.all(tag, **attributes)]

    @property
    def data(self):
        (element,) = self.all("script", type="application/json")
        return json.loads(element["text"])


def metrics(step):
    return {
        "step": step,
        "seconds": 3.0 * step,
        "reward": 0.2 + 0.01 * step,
        "parts": {"math.answer": 0.25 + 0.01 * step},
        "length": 12 - 0.25 * step,
        "entropy": 0.6,
        "no_signal": 0.125,
        "abstained": 0.03125,
        "reasons": {"deadline 2.0 s": 2, "no answer": 1},
        "tokens_per_second": 5300.0,
    }


def sample(completions, **columns):
    """Columns of a sample in one group; the first half right, the rest wrong."""
    n = len(completions)
    right = [1.0 if i < n / 2 else 0.0 for i in range(n)]
    table = {"group": [0] * n, "prompt": ["1+1="] * n, "completion": completions, "finished": [True] * n}
    scoring = {"score": [0.75 * r for r in right], "valid": [True] * n, "reason": [None] * n, "part.math.answer": right}
    return {**table, **scoring, **columns}


def save(run, step, table):
    tables.write_parquet(run.folder / "rollouts" / f"step-{step:06d}.parquet", table)


@pytest.fixture
def run(tmp_path):
    """A finished run of 20 steps."""
    run = Run.open(tmp_path / "sums", CONFIG)
    run.log_evaluation(BEFORE)
    for step in range(1, 21):
        run.log(metrics(step))
    run.log_evaluation(AFTER)
    for step in (10, 20):
        save(run, step, sample([f"{step}: {i}" for i in range(4)], answer=["2"] * 4, advantage=[1.0, 1.0, -1.0, -1.0]))
    ends = [{name: e[name] for name in ("accuracy", "ci95", "mean_length")} for e in (BEFORE, AFTER)]
    run.save_summary(
        {"before": ends[0], "after": ends[1], "seconds": 174.2, "peak_rss_mib": 2500.0, "abstained": 0.03125}
    )
    return run


def page(run):
    return Page(write(run).read_text(encoding="utf-8"))


# One document, ours alone.


def test_the_report_is_one_document_that_asks_for_nothing(run):
    path = write(run)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    assert path == run.folder / "report.html"
    assert len(parsed.all("html")) == len(parsed.all("body")) == len(parsed.all("h1")) == 1
    assert not [e for e in parsed.elements if {"src", "href", "srcset", "action", "style"} & e.keys()]
    assert not [name for e in parsed.elements for name in e if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    ids = [e["id"] for e in parsed.elements if "id" in e]
    assert len(ids) == len(set(ids))


def test_the_policy_lets_the_browser_run_our_script_and_nothing_else(run):
    parsed = page(run)
    (policy,) = [e["content"] for e in parsed.all("meta") if e.get("http-equiv") == "Content-Security-Policy"]
    data, script = parsed.all("script")
    (style,) = parsed.all("style")
    assert data["type"] == "application/json"
    for element, directive in ((script, "script-src"), (style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_what_a_model_writes_ends_no_element_and_comes_back_whole(run):
    before = [(e["tag"], e.get("id")) for e in page(run).elements]
    chat = [[{"role": "user", "content": text}] for text in NASTY]
    table = sample(NASTY, prompt=chat, answer=NASTY, details=[{"</script>": text} for text in NASTY])
    save(run, 20, table | {"valid": [False] * len(NASTY), "reason": NASTY})
    parsed = page(run)
    assert [(e["tag"], e.get("id")) for e in parsed.elements] == before
    data = parsed.data["samples"]
    rows = [i for i, step in enumerate(data["rows"]["step"]) if step == 20]
    read = {name: [data["rows"][name][i] for i in rows] for name in data["rows"]}
    assert [data["texts"][pairs[0][1]] for pairs in read["completion"]] == NASTY
    assert [data["texts"][pairs[0][1]] for pairs in read["prompt"]] == NASTY
    assert [data["texts"][number] for number in read["reason"]] == NASTY
    assert [data["texts"][pairs[0][1]] for pairs in read["columns"]] == NASTY
    assert [data["texts"][pairs[0][0]] for pairs in read["details"]] == ["</script>"] * len(NASTY)


def test_names_and_recipes_are_text_too(tmp_path):
    name = "</title><script>alert(1)</script>\x1b&amp;"
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / "config.yaml").write_text(f"name: {json.dumps(name)}\nnote: </pre><script>alert(2)</script>\n")
    run.log({"step": 1, "reward": 0.5, "parts": {"</script>": 0.5}, "reasons": {"</script><b>": 3}})
    parsed = page(run)
    assert len(parsed.all("script")) == 2
    assert parsed.texts("h1") == [r"</title><script>alert(1)</script>\x1b&amp;"]
    assert "note: </pre><script>alert(2)</script>" in parsed.texts("pre")[0]
    assert parsed.data["curves"]["parts"] == {"</script>": [0.5]}


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
@example("</script><!--<script>\u2028\u2029\ud800&")
def test_embedded_text_is_inert_and_survives(text):
    parsed = Page(f'<script type="application/json">{embed(text)}</script><p>after</p>')
    assert not set(embed(text)) & set("<>&\u2028\u2029")
    assert embed(text).encode("utf-8")
    assert [e["tag"] for e in parsed.elements] == ["script", "p"]
    # Two lone surrogates side by side are one character to every reader of JSON.
    assert parsed.data == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_lone_surrogates_in_a_chat_survive(run):
    chat = [[{"role": "user", "content": "a\ud800b"}], [{"role": "user", "content": None, "tool_calls": ["\udfff"]}]]
    save(run, 20, sample(["x", "y"], details=[{"k": chat[0]}, {"z": chat[1]}]))
    assert any("\ud800" in text for text in page(run).data["samples"]["texts"])


# What it says is what the files say.


def test_the_headline_has_the_numbers_of_the_summary(run):
    parsed = page(run)
    tiles = dict(zip(parsed.texts("dt"), parsed.texts("dd"), strict=True))
    assert tiles == {
        "Accuracy": "0.24→0.71",
        "Answer length": "11.2→6.3",
        "Time": "2 min 54 s",
        "Peak memory": "2.4 GiB",
        "Abstained": "3.12 %",
    }
    notes = " ".join(parsed.texts("p")).replace("\u202f", " ")
    assert "95 % [0.21, 0.27] → [0.68, 0.74] · 1 024 answers" in notes
    assert "tokens, mean · −44 %" in notes
    assert "20 steps · 5 300 tokens/s" in notes
    assert parsed.texts("span", class_="state finished") == ["finished"]
    assert parsed.texts("p", class_="verdict better") == [
        "Accuracy rose from 0.24 to 0.71; the 95 % intervals do not overlap. Answers became 44 % shorter."
    ]


@pytest.mark.parametrize(
    ("before", "after", "said", "tone"),
    [
        ((0.24, (0.21, 0.27)), (0.71, (0.68, 0.74)), "rose from 0.24 to 0.71; the 95 % intervals do not", "better"),
        ((0.71, (0.68, 0.74)), (0.24, (0.21, 0.27)), "fell from 0.71 to 0.24; the 95 % intervals do not", "worse"),
        ((0.24, (0.21, 0.27)), (0.29, (0.26, 0.32)), "the 95 % intervals overlap", "unclear"),
        ((0.29, (0.26, 0.32)), (0.24, (0.21, 0.27)), "the 95 % intervals overlap", "unclear"),
        ((0.24, (0.21, 0.27)), (0.30, (0.27, 0.33)), "the 95 % intervals overlap", "unclear"),
        ((0.50, (0.10, 0.90)), (0.60, (0.55, 0.65)), "the 95 % intervals overlap", "unclear"),
        ((0.24, None), (0.71, (0.68, 0.74)), "from 0.24 to 0.71; without intervals", "unclear"),
        ((0.24, (0.21, 0.27)), (None, None), "0.24 before training; none has been measured since", "unclear"),
        ((None, None), (0.71, (0.68, 0.74)), "no accuracy has been measured", "unclear"),
        ((0.002, (0.001, 0.003)), (0.006, (0.005, 0.007)), "rose from 0.002 to 0.006", "better"),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(before, after, said, tone):
    sentence, found = verdict(Outcome(*before), Outcome(*after))
    assert said in sentence
    assert found == tone


def test_an_unfinished_run_says_so_and_shows_what_there_is(run):
    (run.folder / "summary.json").unlink()
    run.rewind(13)
    run.log_evaluation({**AFTER, "step": 12})
    parsed = page(run)
    assert parsed.texts("span", class_="state unfinished") == ["unfinished · step 13 of 20"]
    assert parsed.texts("p", class_="verdict better")[0].startswith(
        "So far, at step 12, accuracy rose from 0.24 to 0.71"
    )
    tiles = dict(zip(parsed.texts("dt"), parsed.texts("dd"), strict=True))
    assert tiles["Time"] == "39 s"  # 13 steps of 3 s
    assert tiles["Peak memory"] == "–"
    assert parsed.data["curves"]["step"] == list(range(1, 14))
    assert set(parsed.data["samples"]["rows"]["step"]) == {10}
    assert parsed.data["finished"] is False


def test_curves_hold_every_number_and_leave_gaps_where_there_is_none(run):
    found = page(run).data["curves"]
    assert found["step"] == list(range(1, 21))
    assert found["series"]["reward"] == pytest.approx([0.2 + 0.01 * k for k in range(1, 21)], rel=1e-5)
    assert found["parts"]["math.answer"] == pytest.approx([0.25 + 0.01 * k for k in range(1, 21)], rel=1e-5)
    assert "kl" not in found["series"]
    nan, inf = float("nan"), float("inf")
    records = [{"step": 3, "reward": None}, {"step": 4, "kl": nan, "loss": -1.5}, {"step": 6, "kl": 2, "loss": inf}]
    sparse = curves(records)
    assert sparse["series"] == {"kl": [None, None, 2], "loss": [None, -1.5, None]}
    assert sparse["step"] == [3, 4, 6]


def test_a_long_run_is_drawn_by_means_of_consecutive_steps():
    records = [{"step": k, "reward": float(k % 3), "kl": None if k <= 3 else 1.0} for k in range(1, 2501)]
    found = curves(records)
    assert found["every"] == 3
    assert found["step"][:3] == [3, 6, 9]
    assert found["step"][-1] == 2500
    assert len(found["step"]) == 834
    assert found["series"]["reward"][:-1] == [1.0] * 833  # (0 + 1 + 2) / 3
    assert found["series"]["reward"][-1] == 2500 % 3
    assert found["series"]["kl"][:2] == [None, 1.0]


def test_the_last_evaluation_of_a_step_counts(run):
    run.log_evaluation({**AFTER, "accuracy": 0.66})
    found = page(run).data["evaluations"]
    assert [(e["step"], e["accuracy"]) for e in found] == [(0, 0.24), (20, 0.66)]
    assert found[0]["ci95"] == [0.21, 0.27]


def test_lengths_before_and_after_share_their_bins(run):
    assert page(run).data["lengths"] == {
        "start": 5,
        "width": 1,
        "sets": [
            {"step": 0, "mean": 11.25, "counts": [0, 0, 0, 0, 1, 0, 2, 0, 0, 1]},
            {"step": 20, "mean": 6.25, "counts": [1, 2, 0, 1, 0, 0, 0, 0, 0, 0]},
        ],
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.lists(st.integers(0, 90), min_size=1, max_size=60))
def test_every_length_is_counted_in_its_bin(before, after):
    found = lengths([{"step": 0, "lengths": before}, {"step": 1, "lengths": [7]}, {"step": 2, "lengths": after}])
    assert [each["step"] for each in found["sets"]] == [0, 2]
    for each, values in zip(found["sets"], (before, after), strict=True):
        assert len(each["counts"]) <= 40
        for k, count in enumerate(each["counts"]):
            low = found["start"] + k * found["width"]
            assert count == sum(low <= value < low + found["width"] for value in values)
        assert sum(each["counts"]) == len(values)


def test_abstentions_are_tallied_by_reason(run):
    run.log({"step": 21, "reasons": {"no answer": 50, "x" * 2000: 1}})
    found = page(run).data["reasons"]
    assert [(r["reason"], r["count"], r["first"], r["last"]) for r in found["rows"]] == [
        ("no answer", 70, 1, 21),
        ("deadline 2.0 s", 40, 1, 20),
        ("x" * 500, 1, 21, 21),
    ]
    assert (found["kinds"], found["total"]) == (3, 111)
    for step in range(22, 60):
        run.log({"step": step, "reasons": {f"reason {step}": 1}})
    found = page(run).data["reasons"]
    assert len(found["rows"]) == 15
    assert (found["kinds"], found["total"]) == (41, 149)


def test_rollouts_are_right_wrong_or_abstained_by_the_part_that_is_evaluated():
    table = {
        "group": [0, 0, 0, 0],
        "prompt": ["p"] * 4,
        "completion": list("abcd"),
        "score": [0.1, 0.9, None, 0.6],
        "valid": [True, True, False, True],
        "reason": [None, None, "deadline 2.0 s", None],
        "part.math.answer": [1.0, 0.5, None, None],
    }
    found = samples([(3, table)], {"evaluation": {"accuracy": [{"part": "math.answer"}]}})
    assert found["rows"]["outcome"] == ["right", "wrong", "abstained", None]
    assert found["right"] == "math.answer above 0.5"
    unknown = samples([(3, table)], {"evaluation": {"accuracy": "text.exact"}})
    assert unknown["rows"]["outcome"] == [None, None, "abstained", None]
    assert unknown["right"] is None
    bare = samples([(3, {"prompt": ["p", "p", "q"], "completion": ["a", "b", "c"], "score": [1, None, 0]})], {})
    assert bare["rows"]["outcome"] == [None, "abstained", None]
    groups = bare["rows"]["group"]
    assert groups[0] == groups[1] != groups[2]


def test_scores_of_steps_are_shown_by_their_mean_and_in_full():
    found = samples([(1, {"prompt": ["p"], "completion": ["c"], "score": [[1.0, None, 0.5]], "valid": [True]})], {})
    assert found["rows"]["score"] == [0.75]
    ((name, value),) = found["rows"]["details"][0]
    assert (found["texts"][name], found["texts"][value]) == ("score, by step", "[1.0, null, 0.5]")


def test_of_many_samples_evenly_spaced_ones_are_kept_and_the_last():
    table = sample([str(i) for i in range(64)])
    found = samples(((step, table) for step in range(10, 2010, 10)), CONFIG)
    kept = list(dict.fromkeys(found["rows"]["step"]))
    assert len(found["rows"]["step"]) <= ROWS
    assert len(kept) >= ROWS / 64 / 2
    assert (kept[0], kept[-1]) == (10, 2000)
    assert len({b - a for a, b in pairwise(kept[:-1])}) == 1
    assert found["total"] == 200 * 64
    huge = samples([(step, sample(["x"] * 3000)) for step in (1, 2)], CONFIG)
    assert huge["rows"]["step"] == [1] * 1000 + [2] * 1000


def test_long_texts_are_cut_to_a_stated_length(run):
    save(run, 20, sample(["short", "x" * 100_000, "y" * 20_000, "z" * 20_001]))
    found = page(run).data["samples"]
    cut = {found["texts"][int(number)]: length for number, length in found["cut"].items()}
    assert cut == {"x" * 20_000: 100_000, "z" * 20_000: 20_001}
    assert "y" * 20_000 in found["texts"]


def test_a_report_stays_below_two_megabytes(run):
    for step in (10, 20):
        texts = [f"{step} {i} " + "<&日🙂\x00" * 3000 for i in range(200)]
        save(run, step, sample(texts, details=[{str(k): f"{k} {t[:500]}" for k in range(60)} for t in texts[:200]]))
    path = write(run)
    assert path.stat().st_size < 2_000_000
    found = Page(path.read_text(encoding="utf-8")).data["samples"]
    for number, length in found["cut"].items():
        assert len(found["texts"][int(number)]) < length
    shortest = min(len(found["texts"][int(number)]) for number in found["cut"])
    assert max(len(text) for text in found["texts"]) == shortest  # all are cut at the same length


def test_writing_again_gives_the_same_file_and_leaves_no_other(run):
    first = write(run).read_bytes()
    assert write(run).read_bytes() == first
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"config.yaml", "evaluations.jsonl", "metrics.jsonl", "report.html", "rollouts", "summary.json"}


# Little or nothing is there.


def test_an_empty_folder_gives_a_report(tmp_path):
    run = Run(tmp_path / "nothing")
    run.folder.mkdir()
    parsed = page(run)
    assert parsed.texts("h1") == ["nothing"]
    assert parsed.texts("span", class_="state unfinished") == ["unfinished · step 0"]
    assert parsed.texts("dd") == ["–"] * 5
    assert parsed.data["curves"]["step"] == parsed.data["evaluations"] == []
    assert parsed.data["samples"]["rows"] == {}


def test_a_torn_line_and_a_broken_recipe_do_not_stop_it(run):
    with (run.folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 21, "rew')
    (run.folder / "config.yaml").write_text("steps: [20\n")
    parsed = page(run)
    assert parsed.data["curves"]["step"][-1] == 20
    assert parsed.texts("pre") == ["steps: [20\n"]


@pytest.mark.parametrize("missing", ["accuracy", "ci95", "mean_length", "n", "lengths", "step"])
def test_an_evaluation_may_lack_anything(tmp_path, missing):
    run = Run.open(tmp_path / "run", CONFIG)
    for record in (BEFORE, AFTER):
        run.log_evaluation({name: value for name, value in record.items() if name != missing})
    run.save_summary({"before": {}, "after": {}})
    parsed = page(run)
    assert len(parsed.texts("dd")) == 5
    assert len(parsed.texts("h2")) == 4


def test_a_headline_without_a_summary_counts_what_the_steps_say():
    records = [{"step": 1, "abstained": 0.5, "seconds": 4.0}, {"step": 2, "abstained": 0.25, "seconds": None}, {}]
    markup = headline(name="x", planned=None, metrics=records, evaluations=[], summary=None)
    assert "37.5" not in markup["tiles"]  # shares of a tenth and more are whole percentages
    assert "<span>38\u00a0%</span>" in markup["tiles"]
    assert "<span>4.0 s</span>" in markup["tiles"]


def test_durations_carry_over():
    assert [duration(s) for s in (0.04, 59.7, 119.6, 3599.9, 7325)] == [
        "0.0 s",
        "1 min 00 s",
        "2 min 00 s",
        "1 h 00 min",
        "2 h 02 min",
    ]


# In a browser.

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OFFLINE = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def drawn(path, profile, script=""):
    """The document after its script, and one of ours, have run; nothing may have been logged."""
    if script:
        # Only without its policy does a page run a script that is not its own.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text(encoding="utf-8"))
        path = path.with_name("acted.html")
        path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", *OFFLINE.split(), f"--user-data-dir={profile}"]
    command = [CHROMIUM, *flags, "--enable-logging=stderr", "--window-size=1280,1000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    parsed = Page(done.stdout)
    assert parsed.all("html")[0].get("data-drawn") == "yes", parsed.texts("p", id="failure")
    return parsed


class Chart:
    """What is drawn in the chart whose label begins so, and where its axis says that a value stands."""

    def __init__(self, parsed, label):
        tags = [e for e in parsed.elements if e["tag"] in ("svg", "text", "circle", "path")]
        begin = next(i for i, e in enumerate(tags) if (e.get("aria-label") or "").startswith(label))
        end = next((i for i in range(begin + 1, len(tags)) if tags[i]["tag"] == "svg"), len(tags))
        self.inside = tags[begin + 1 : end]
        texts = [e for e in self.inside if e["tag"] == "text" and e.get("text-anchor") == "end" and "class" not in e]
        self.marks = [(float(e["text"]), float(e["y"])) for e in texts if re.fullmatch(r"\d\.\d+", e["text"])]

    def at(self, value):
        (a, at_a), (b, at_b) = self.marks[0], self.marks[-1]
        return at_a + (value - a) / (b - a) * (at_b - at_a) - 4  # a label stands 4 below its line

    def heights(self, kind):
        paths = [e["d"] for e in self.inside if e["tag"] == "path" and e.get("class") == kind]
        return [[float(point.split()[1]) for point in re.split("[ML]", path)[1:]] for path in paths]


@browser
@pytest.mark.processes
def test_a_browser_draws_what_the_files_say(run, tmp_path):
    texts = [*NASTY, "x" * 100_000]
    save(run, 20, sample(texts, answer=["2"] * len(texts)))
    parsed = drawn(write(run), tmp_path / "profile")
    assert not parsed.all("img")
    assert len(parsed.all("script")) == 2

    rows = parsed.all("tr", role="row")
    assert len(rows) == len(texts)
    shown = [e["text"] for e in parsed.all("td", class_="text")]
    assert any("<img src=x onerror=alert(1)>" in text for text in shown)
    assert any("</script><script>alert(1)</script>" in text for text in shown)
    assert any(r"\x00\x1b[31m\x7f\x0d" in text for text in shown)
    assert any(r"right\u202e to left \u2028 new line" in text for text in shown)
    assert max(map(len, shown)) < 300

    panels = {p["text"]: p for p in parsed.all("figure")}
    reward = next(text for text in panels if text.startswith("Reward"))
    assert "reward 0.400math.answer 0.450" in reward  # the last step's
    assert next(text for text in panels if text.startswith("Entropy")).startswith("Entropynats per token0.600")
    assert any("KL to the reference" in text and "Not recorded" in text for text in panels)
    assert any("before mean 11.3" in text and "after mean 6.25" in text for text in panels)
    cells = parsed.texts("td")
    assert cells[:2] + cells[5:7] == ["deadline 2.0 s", "40", "no answer", "20"]


@browser
@pytest.mark.processes
def test_points_stand_where_their_axis_says(run, tmp_path):
    parsed = drawn(write(run), tmp_path / "profile")
    accuracy = Chart(parsed, "Accuracy at evaluations: 0.240 at step 0, 0.710 at step 20")
    assert [text for text, _ in accuracy.marks] == [0.0, 0.2, 0.4, 0.6, 0.8]
    points = [float(e["cy"]) for e in accuracy.inside if e["tag"] == "circle"]
    assert points == pytest.approx([accuracy.at(0.24), accuracy.at(0.71)], abs=1)

    reward = Chart(parsed, "Reward, ")
    shaped, part = reward.heights("raw")
    assert shaped == pytest.approx([reward.at(0.2 + 0.01 * k) for k in range(1, 21)], abs=1)
    assert part == pytest.approx([reward.at(0.25 + 0.01 * k) for k in range(1, 21)], abs=1)
    # A centred mean leaves a straight line as it is, but for its ends.
    assert reward.heights("line")[0][5:-5] == pytest.approx(shaped[5:-5], abs=0.2)
    entropy = Chart(parsed, "Entropy, ")
    assert entropy.heights("line") == entropy.heights("raw") == [pytest.approx([entropy.at(0.6)] * 20, abs=1)]


@browser
@pytest.mark.processes
def test_the_table_filters_sorts_and_follows_the_keys(run, tmp_path):
    words = ["apple", "pear", "apple pie", "plum", "fig", "apple tart"]
    columns = {"length": [5, 4, 9, 4, 3, 10], "reason": [None] * 5 + ["judge HTTP 503"], "valid": [True] * 5 + [False]}
    save(run, 20, sample(words, score=[0.75, 0.5, 0.25, 0.0, 0.0, None], **columns))
    script = """
      const choose = (element, value) => { element.value = value; element.dispatchEvent(new Event("input")); };
      const list = document.querySelector(".list");
      const key = (name) => list.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
      const heads = () => [...document.querySelectorAll("thead button")];
      const header = (name) => heads().find((button) => button.textContent.startsWith(name));
      const log = [];
      const note = () => log.push([...list.querySelectorAll("td.text")].map((cell) => cell.textContent).join(", ")
        + " | " + document.querySelector(".chosen pre ~ h3 + pre").textContent);
      note();
      choose(document.querySelector("[type=search]"), "APPLE"); note();
      header("length").click(); note();
      header("length").click(); note();
      key("ArrowDown"); note(); key("ArrowDown"); key("ArrowDown"); note(); key("ArrowUp"); note();
      document.querySelector("[value=abstained]").click(); note();
      log.push(document.querySelector(".why").textContent);
      document.querySelector("[value='']").click(); choose(document.querySelector("[type=search]"), "503"); note();
      const article = document.createElement("article");
      article.id = "log";
      article.textContent = log.join("\\n");
      document.body.append(article);
    """
    (log,) = drawn(write(run), tmp_path / "profile", script).texts("article", id="log")
    assert log.split("\n") == [
        "apple, pear, apple pie, plum, fig, apple tart | apple",
        "apple, apple pie, apple tart | apple",
        "apple tart, apple pie, apple | apple",
        "apple, apple pie, apple tart | apple",
        "apple, apple pie, apple tart | apple pie",
        "apple, apple pie, apple tart | apple tart",
        "apple, apple pie, apple tart | apple pie",
        "apple tart | apple tart",
        "judge HTTP 503",
        "apple tart | apple tart",
    ]


@browser
@pytest.mark.processes
def test_a_browser_draws_runs_with_little_in_them(tmp_path):
    runs = {name: Run(tmp_path / name) for name in ("nothing", "one step", "abstained", "evaluated")}
    for run in runs.values():
        (run.folder / "rollouts").mkdir(parents=True)
    runs["one step"].log(metrics(1))
    save(runs["one step"], 1, {"prompt": ["p"], "completion": ["c"]})
    for step in (1, 2):
        runs["abstained"].log({"step": step, "reward": None, "parts": {"math.answer": None}, "abstained": 1.0})
    unscored = {"score": [None], "valid": [False], "reason": ["why"]}
    save(runs["abstained"], 2, {"prompt": ["p"], "completion": ["c"], **unscored})
    runs["evaluated"].log_evaluation(BEFORE)
    pages = {name: drawn(write(run), tmp_path / "profile") for name, run in runs.items()}
    rows = {name: len(parsed.all("tr", role="row")) for name, parsed in pages.items()}
    assert rows == {"nothing": 0, "one step": 1, "abstained": 1, "evaluated": 0}
    assert {name for name, parsed in pages.items() if parsed.all("figure")} == runs.keys() - {"nothing"}
