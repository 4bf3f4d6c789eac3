import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raee.answers import Neighbours
from raee.config import (
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.exits import Entries, Exit, exits_of
from raee.policies.compared import Judged
from raee.policies.costs import LAYERS, Costs
from raee.policies.objectives import Figures, Point, Promise, Step, Tuning
from raee.policies.replay import Trial, replay
from raee.policies.tuning import FULL_DEPTH
from raee.statistics.far import Far, Space
from tasks.report.data import Hits, Parent
from tasks.report.gathering import gather
from tasks.report.page import render
from tasks.report.words import in_words, shorten

_EVIL = "<script>alert(1)</script> & \"quoted\" 'text'"
_ROWS = 20
_TUNED = CascadePolicy(readers=("probe",), threshold=0.9)
_COSTS = Costs(encode=0.0, layer=0.0036, reads={"probe": 0.0})
_CREATED = datetime(2025, 11, 24, 20, 11, tzinfo=UTC)
_SECTIONS = (
    "summary",
    "policies",
    "by-exit",
    "answers",
    "size",
    "unlike",
    "labels",
    "examples",
    "million",
    "reading",
)
_CHARTS = ("pareto", "by-exit", "exits", "reliability", "growth", "far")


_EXITS = exits_of(2, (0,))


def _trial(exits=_EXITS, **right):
    """Twenty rows of two labels in turn.

    `probe@0` is .95 sure of 0 to 9 and right on 0 to 8, `probe@2` is .75 sure and right on 10 to
    17, the pool is right on 3 to 17 and the regression on 0 to 13; `right` says it otherwise.
    """
    label = (np.arange(_ROWS) % 2).astype(np.uint16)
    answers = np.tile(label[:, None], len(exits))
    confidences = np.full((_ROWS, len(exits)), 0.55, np.float32)
    told = {
        "head@2": range(0),
        "probe@0": range(9),
        "probe@2": range(10, 18),
        "pool@2": range(3, 18),
        "logistic@2": range(14),
        **{name.replace("_", "@"): rows for name, rows in right.items()},
    }
    for place, exit in enumerate(exits):
        wrong = [i for i in range(20) if i not in told.get(str(exit), ())]
        answers[wrong, place] = 1 - label[wrong]
        if exit == Exit("probe", 0):
            confidences[:, place] = 0.95
            confidences[10:, place] = 0.55
        elif exit == Exit("probe", 2):
            confidences[:, place] = 0.75
    rows = np.arange(_ROWS)
    hashes = rows.astype(np.uint64)
    entries = Entries(exits, (f"no {_EVIL}", "yes"), label, answers, confidences, hashes)
    neighbours = Neighbours(
        np.stack([(rows + 1) % _ROWS, (rows - 1) % _ROWS], axis=1),
        np.ones((_ROWS, 2), np.float32),
    )
    return Trial(entries, rows, neighbours)


def _tuning(full_depth="pool@2", tuned=_TUNED):
    figures = Figures(accuracy=0.85, mean_layers=1.0, seconds_per_row=0.0036)
    points = [
        Point(policy=policy, fitted=figures, cross_fitted=figures)
        for policy in (FixedPolicy(exit=full_depth), FixedPolicy(exit="vote@0"), tuned)
    ]
    return Tuning(
        seed=0,
        tried=1234,
        rows=20,
        texts=20,
        full_depth=points[0],
        front=points[1:],
        families={tuned.name: points[2]},
        keys={},
        promise=Promise(
            baseline=Step(policy=points[0].policy, figures=figures, lost=0, gained=0),
            steps=[],
            texts=20,
        ),
    )


def _far():
    """Rows of which the last two are far from the others."""
    nothing = np.zeros(1, np.float32)
    space = Space(nothing, np.zeros((1, 1), np.float32), nothing[None], nothing + 1, nothing + 1)
    nearest = np.r_[np.linspace(0.5, 1.0, _ROWS - 2), 40.0, 50.0].astype(np.float32)
    return Far(space, 0.0, np.stack([nearest, np.full(_ROWS, np.nan), np.full(_ROWS, np.nan)]))


def _gather(trial=None, policies=None, full_depth="pool@2", **changes):
    trial = _trial() if trial is None else trial
    policies = {FULL_DEPTH: FixedPolicy(exit=full_depth), **(policies or _POLICIES)}
    costs = changes.get("costs", _COSTS)
    values = {
        "name": "questions",
        "version": "20251124-201100-000000-abcdef01",
        "created_at": _CREATED,
        "trial": trial,
        "tuning": _tuning(),
        "runs": {
            name: Judged(policy, replay(policy, trial, costs), name in ("tuned", FULL_DEPTH))
            for name, policy in policies.items()
        },
        "costs": costs,
        "far": _far(),
        "far_level": 0.05,
        "growth": {"vote": [(10, 0.5), (20, 0.625)], f"probe {_EVIL}": [(20, 0.75)]},
        "texts": lambda places: [f"text {place} {_EVIL}" for place in places],
        **changes,
    }
    return gather(**values)


_POLICIES = {
    "full": FullPolicy(),
    "raee": RaeePolicy(k=2),
    "kernel": KernelPolicy(k=2),
    "logistic": FixedPolicy(exit="logistic@2"),
    "tuned": _TUNED,
}


class _Page(HTMLParser):
    """What is where: text by the ids around it, tables by their ids, and all attributes."""

    _VOID = ("meta", "br")

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = Counter(), []
        self.text, self.tables = {}, {}
        self._open = []
        self.feed(html)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self._VOID:
            self._open.append((tag, dict(attrs).get("id")))
        table = self._table()
        if table is not None and tag == "tr":
            self.tables.setdefault(table, []).append([])
        if table is not None and tag in ("td", "th"):
            self.tables[table][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, identity in self._open:
            if identity is not None:
                self.text[identity] = self.text.get(identity, "") + data
        table = self._table()
        if table is not None and any(tag in ("td", "th") for tag, _ in self._open):
            self.tables[table][-1][-1] += data

    def _table(self):
        return next((i for tag, i in self._open if tag == "table" and i is not None), None)

    def said(self, identity):
        return " ".join(self.text[identity].split())

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def html():
    return render(_gather(parent=Parent("20251123-1", 36, 0.8125, 1.25)))


@pytest.fixture(scope="module")
def page(html):
    return _Page(html)


def test_the_tuned_policy_is_counted_as_its_picks_answered():
    data = _gather()
    tuned, full = data.policies["tuned"], data.policies[FULL_DEPTH]
    assert (tuned.hits, tuned.fitted) == (Hits(17, 20), Hits(17, 20))
    assert (full.hits, full.fitted) == (Hits(15, 20), Hits(15, 20))
    assert (tuned.mean_layers, tuned.seconds_per_row) == pytest.approx((1.0, 0.0036))
    assert [(d.other, d.ours, d.theirs, d.verdict) for d in data.duels] == [
        (FULL_DEPTH, 3, 1, "not distinguishable"),
        ("majority", 8, 1, "better"),
        ("logistic", 4, 1, "not distinguishable"),
    ]
    assert [d.difference for d in data.duels] == pytest.approx([0.1, 0.35, 0.15])
    assert all(d.interval[0] < d.difference < d.interval[1] for d in data.duels)
    assert [(e.exit, e.hits) for e in data.exits] == [
        ("probe@0", Hits(9, 10)),
        ("probe@2", Hits(8, 10)),
    ]
    # Drawn a little from .75 and .95 towards how often rows are right.
    assert sum(b.hits.rows for b in data.bins) == 20
    assert sum(b.hits.right for b in data.bins) == 17
    assert data.calibration_error < 0.15
    assert (data.far.beyond, data.far.rows, sum(data.far.counts)) == (2, 20, 20)
    assert (data.examples.early_rows, data.examples.full_rows) == (3, 1)
    assert {e.exit for e in data.examples.early} == {"probe@0"}
    assert data.curves["probe"] == ((0, 9 / 20), (1, 0.0), (2, 8 / 20))


def test_wilsons_interval():
    # By the formula: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).
    assert Hits(17, 20).interval == pytest.approx((0.6396, 0.9476), abs=1e-4)


@given(rows=st.integers(1, 10**6), share=st.floats(0, 1))
def test_an_interval_holds_the_accuracy(rows, share):
    hits = Hits(round(share * rows), rows)
    low, high = hits.interval
    assert -1e-9 <= low <= hits.share + 1e-9
    assert hits.share - 1e-9 <= high <= 1 + 1e-9


@pytest.mark.parametrize(
    ("tuned", "right", "verdict"),
    [
        (_TUNED, range(7), "better"),  # only ours: 7, 8 and 10 to 17
        (_TUNED, range(14), "not distinguishable"),
        (_TUNED, range(20), "not distinguishable"),  # only theirs: 9, 18 and 19
        (FixedPolicy(exit="head@2"), range(14), "worse"),
    ],
)
def test_better_or_worse_is_said_only_beyond_chance(tuned, right, verdict):
    trial = _trial(logistic_2=right)
    policies = {"logistic": FixedPolicy(exit="logistic@2"), "tuned": tuned}
    assert _gather(trial=trial, policies=policies).duels[-1].verdict == verdict


def test_what_a_pick_has_where_it_was_picked_is_shown_beside_what_it_is_worth():
    trial = _trial()
    lucky = replay(_TUNED, trial, _COSTS)
    picks = replay(FixedPolicy(exit="pool@2"), trial, _COSTS)  # what picks without the fold did
    runs = {
        FULL_DEPTH: Judged(FixedPolicy(exit="pool@2"), picks, True),
        "tuned": Judged(_TUNED, picks, True),
        "full": Judged(FullPolicy(), lucky, False),
    }
    data = _gather(trial=trial, runs=runs)
    assert data.policies["tuned"].hits == Hits(15, 20)
    assert data.policies["tuned"].fitted == Hits(17, 20)
    table = {line[1]: line for line in _Page(render(data)).tables["policy-table"][1:]}
    assert (table["tuned"][2], table["tuned"][5]) == ("75.0%", "85.0%")
    assert table["full"][5] == "–"


def _with_words(right, **changes):
    policies = {"words": FixedPolicy(exit="words@0"), **_POLICIES}
    return _gather(trial=_trial(words_0=right), policies=policies, **changes)


def test_the_first_line_says_if_a_baseline_is_better_and_what_to_do():
    html = render(_with_words(range(18)))
    page = _Page(html)
    assert page.said("better-baseline") == (
        "N-grams + logistic regression alone is right as often as tuned (0.900 against 0.850), and "
        "costs less: set `policy: {name: fixed, exit: words@0}`, label more rows, or try another "
        "backbone."
    )
    assert html.index('id="better-baseline"') < html.index("<h1>")
    assert "Against the best baseline -5.0 points" in " ".join(
        re.sub("<[^>]*>", " ", html[html.index("<h1>") :]).split()
    )
    assert "better-baseline" not in _Page(render(_with_words(range(12)))).text


def test_the_first_line_is_about_the_jobs_policy():
    said = _Page(render(_gather(own="full"))).said("better-baseline")
    assert "is right more often than full, beyond noise" in said


def test_the_baselines_are_in_the_tables_under_what_they_are():
    page = _Page(render(_with_words(range(12))))
    lines = {line[1]: line[2:] for line in page.tables["policy-table"][1:]}
    assert lines["wordsn-grams + logistic regression"][0] == "60.0%"
    assert lines["logisticfull depth + logistic regression"][0] == "70.0%"
    assert lines["majoritythe most frequent label"] == ["50.0%", "29.9% – 70.1%", "0.333", "–"]
    summary = page.said("summary")
    assert "Against n-grams + logistic regression, which needs no model (60.0%): " in summary
    assert (
        "Against the most frequent label for every row (50.0%): better, by +35.0 points" in summary
    )
    assert [line[0] for line in page.tables["saving-table"][1:]] == [
        *(FULL_DEPTH, "words", "logistic", "tuned")
    ]


def test_what_the_pools_experts_count_is_said_where_most_rows_leave_and_at_full_depth():
    pool = [
        {"words": 0.9, "probe@0": 0.2},
        {"words": 0.55, "head": 0.1, "vote@0": 0.05, "probe@0": 0.3, "probe@1": 0.52},
        {"words": 0.5, "head": 0.001, "probe@2": 0.7},
    ]
    tuned = CascadePolicy(readers=("pool",), first=1, threshold=0.5)
    data = _gather(policies={**_POLICIES, "tuned": tuned}, pool=pool)
    assert [(p.depth, p.rows) for p in data.pools] == [(1, 20), (2, 0)]
    said = _Page(render(data)).said("pool-weights")
    assert said == (
        "The pool at depth 1, where most of its rows leave (20 rows): words count 0.55, probes "
        "0.82, votes 0.05, heads 0.10. The pool at full depth: words count 0.50, probes 0.70."
    )
    assert [p.depth for p in _gather(pool=pool).pools] == [2]  # no row leaves at a pool
    assert "pool-weights" not in _Page(render(_gather())).text


def test_copies_are_said():
    copies = {"rows_with_an_equal": 12, "barred": None}
    said = _Page(render(_gather(copies=copies))).said("summary")
    assert "12 rows have a text that another row has, too" in said
    barred = {"rows_with_an_equal": 0, "barred": "20% of the rows are near-copies"}
    assert "20% of the rows are near-copies." in _Page(render(_gather(copies=barred))).said(
        "summary"
    )


def test_every_section_is_there(page):
    assert set(_SECTIONS) <= page.text.keys()
    # Whoever follows a link of the page arrives.
    targets = [v[1:] for tag, name, v in page.attributes if (tag, name) == ("a", "href")]
    assert set(targets) <= set(page.values("id"))


def test_the_page_shows_the_figures(page):
    assert "1,234 policies were tried on 20 rows" in page.said("summary")
    assert "picked among them are cross-fitted" in page.said("summary")
    assert "No test split was seen." in page.said("summary")
    assert "(75.0%): not distinguishable" in page.said("summary")
    assert "3 are the tuned policy's and 1 the other's" in page.said("summary")
    assert "81.2% right after 1.25 layers" in page.said("summary")
    # Macro F1 of full depth: 14 / 19 and 16 / 21.
    policies = {line[1]: line[2:] for line in page.tables["policy-table"][1:]}
    assert next(iter(policies)) == "tuned"
    assert policies["tuned"] == ["85.0%", "64.0% – 94.8%", "0.850", "85.0%"]
    assert policies[FULL_DEPTH] == ["75.0%", "53.1% – 88.8%", "0.749", "75.0%"]
    assert policies["kernel"][-1] == "–"
    assert page.tables["exit-table"][1:] == [
        ["probe@0", "10", "50.0%", "90.0%"],
        ["probe@2", "10", "50.0%", "80.0%"],
    ]
    assert page.tables["bin-table"][1] == ["0.0 – 0.1", "0", "–", "–"]
    assert "Expected calibration error 0." in page.said("answers")
    assert "2 of 20 rows (10.00%)" in page.said("unlike")
    assert "Of rows like these, 5.0% are." in page.said("unlike")
    assert "62.5%" in page.said("size")
    # tuned: of ten `no` nine are found, of eleven that it calls `no`; eight of ten `yes`.
    no, yes = page.tables["label-table"][2:]
    assert no[0].startswith("no ")
    assert [no[1], no[2], no[5], no[8]] == ["10", "85.7%", "81.8%", "90.0%"]
    assert [yes[0], yes[1], yes[2], yes[5], yes[8]] == ["yes", "10", "84.2%", "88.9%", "80.0%"]
    assert [line[:3] for line in page.tables["saving-table"][1:]] == [
        [FULL_DEPTH, "2,000,000", "2.00"],
        ["logistic", "2,000,000", "2.00"],
        ["tuned", "1,000,000", "1.00"],
    ]
    assert "50.0% of full depth's time: 1.00 hours less" in page.said("million")
    assert "is right: 3 rows" in page.said("early-examples")
    assert "is right: 1 row " in page.said("full-examples")


def test_the_headline_says_accuracy_and_layers(html):
    assert "<h1>85.0% right after 1.00 of 2 layers</h1>" in html
    assert (
        "a row leaves at the first depth from 0 to 2 at which the probe is sure enough (90.0%), "
        "and at depth 2 in any case"
    ) in html


def test_every_chart_has_a_title_a_description_and_its_figures(page):
    ids = page.values("id")
    assert [v for t, n, v in page.attributes if (t, n) == ("svg", "role")] == ["img"] * 6
    for chart in _CHARTS:
        for part in ("title", "description"):
            assert page.text[f"{chart}-{part}"]
        assert f"{chart}-title {chart}-description" in page.values("aria-labelledby")
    assert len(ids) == len(set(ids))
    assert "tuned: 85.0% at 3.6" in page.text["pareto-description"]
    assert page.text["exits-description"].endswith("probe@0: 50.0%; probe@2: 50.0%")


def test_nothing_is_fetched(html, page):
    assert not re.search(r"https?:|@import|@font-face|data:", html)
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "image"}
    assert all(v.startswith("#") for n in ("href", "src") for v in page.values(n))
    linked = re.findall(r"url\((.*?)\)", html)
    assert all(u.startswith("#") for u in linked)
    inside = [v[1:] for t, n, v in page.attributes if (t, n) == ("use", "href")]
    assert {*inside, *(u[1:] for u in linked)} <= set(page.values("id"))


def test_charts_take_their_colours_from_the_page(html):
    charts = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.search(r"#0{5}\d", charts)
    declared = set(re.findall(r"(--[a-z0-9-]+):", html))
    assert set(re.findall(r"var\((.*?)\)", html)) <= declared
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    assert set(re.findall(r"--[a-z0-9-]+", light)) == set(re.findall(r"--[a-z0-9-]+", dark))


def test_texts_labels_and_names_are_text(html, page):
    assert "<script" not in html
    assert _EVIL in page.said("early-examples")
    assert _EVIL in page.said("full-examples")
    assert f"no {_EVIL}" in page.said("labels")
    assert f"probe {_EVIL}" in page.text["growth-description"]
    assert page.said("chart-growth").count(_EVIL) == 2  # in the legend, too


def test_the_same_data_give_the_same_bytes(html):
    assert render(_gather(parent=Parent("20251123-1", 36, 0.8125, 1.25))) == html


def test_examples_are_a_few_short_ones():
    data = _gather(texts=lambda places: [f"{place}\n" + "long " * 100 for place in places])
    assert len(data.examples.early) == 3
    everything = _gather(trial=_trial(pool_2=range(0)))
    assert everything.examples.early_rows == 9  # those that left at depth 2 were not early
    assert len(everything.examples.early) == 5
    for example in data.examples.early:
        assert len(example.text) == 200
        assert example.text.endswith("…")
        assert "\n" not in example.text


def test_texts_are_asked_by_the_places_of_entries():
    trial = _trial()
    asked = []

    def texts(places):
        asked.extend(places)
        return ["text"] * len(places)

    _gather(trial=trial, texts=texts)
    assert sorted(asked) == [0, 1, 2, 9]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (FullPolicy(), "every row runs 2 layers and the model's own head (head@2) answers"),
        (RetrievalPolicy(), "every row runs 0 layers and the neighbours' vote (vote@0) answers"),
        (
            FixedPolicy(exit="words@0"),
            "every row runs 0 layers and the regression on n-grams (words@0) answers",
        ),
        (FixedPolicy(exit="probe@1"), "every row runs 1 layer and the probe (probe@1) answers"),
        (
            CascadePolicy(readers=("vote", "probe"), last=2, threshold=(0.5, 0.75, 0.9)),
            "a row leaves at the first depth from 0 to 2 at which the neighbours' vote or the "
            "probe is sure enough (depth 0: 50.0%, depth 1: 75.0%), and at depth 2 in any case",
        ),
        (
            De3Policy(first=1, threshold=0.8),
            "a row leaves at the first depth from 1 to 2 at which the probe by DE3-BERT's rule is "
            "sure enough (80.0%), and at depth 2 in any case",
        ),
        (
            RaeePolicy(k=2),
            "the paper's rule: 2 neighbours say at which depth the model's own head answers, by "
            "where it was right and at least 90.0% sure",
        ),
    ],
)
def test_policies_in_words(policy, words):
    trial = _trial()
    assert in_words(policy, trial.entries, replay(policy, trial)) == words


@given(text=st.text(), longest=st.integers(1, 30))
def test_a_shortened_text_is_one_line(text, longest):
    short = shorten(text, longest)
    assert len(short) <= longest
    assert len(short.splitlines()) <= 1
    if short and not short.endswith("…"):
        assert short.split() == text.split()


def test_a_version_without_probes_shows_what_it_has():
    exits = tuple(e for e in _EXITS if e.reader in ("head", "vote"))
    tuned = CascadePolicy(readers=("head",), first=0, last=1, threshold=(0.5, 0.9))
    data = _gather(
        trial=_trial(exits),
        tuning=_tuning("head@2", tuned),
        full_depth="head@2",
        policies={"full": FullPolicy(), "tuned": tuned},
        growth={},
        texts=None,
    )
    page = _Page(render(data))
    assert data.curves.keys() == {"head", "vote"}
    assert [d.other for d in data.duels] == [FULL_DEPTH, "majority"]
    assert "no logistic regression" in page.said("summary")
    assert [line[0] for line in page.tables["saving-table"][1:]] == [FULL_DEPTH, "tuned"]
    assert "keeps no texts" in page.said("examples")
    assert "Not measured" in page.said("size")
    assert "growth-title" not in page.values("id")


def test_without_measured_costs_there_are_layers_and_no_hours():
    page = _Page(render(_gather(costs=LAYERS)))
    assert page.tables["saving-table"][0][:2] == ["Policy", "Layers run"]
    assert page.tables["saving-table"][-1][1] == "1,000,000"
    assert "hours less" not in page.said("million")
    assert "layers a row" in page.said("chart-pareto")


def test_rows_on_which_not_every_exit_was_read_are_counted_but_not_tried():
    whole = _trial()
    data = _gather(trial=whole[np.arange(15)])
    assert (data.rows, data.tried_rows) == (20, 15)


def test_numbers_of_policies_that_do_the_same_lie_apart():
    same = {f"policy {i}": FixedPolicy(exit="pool@2") for i in range(9)}
    html = render(_gather(policies={**same, "tuned": FixedPolicy(exit="pool@2")}))
    chart = re.search(r'<figure class="chart" id="chart-pareto">(.*?)</figure>', html, re.DOTALL)
    at = [
        (float(found[1]), float(found[2]))
        for found in re.finditer(
            r'<text style="[^"]*font-weight: 700[^"]*" x="([\d.]+)" y="([\d.]+)"', chart[1]
        )
    ]
    assert len(at) == 11
    apart = np.hypot(*(np.array(at)[:, None] - np.array(at)[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(at), dtype=bool)].min() > 16


def test_of_many_labels_and_rows_the_page_says_what_it_leaves_out():
    data = _gather()
    many = tuple(replace(data.by_label[0], label=f"label {i}") for i in range(200))
    html = render(replace(data, by_label=many, labels=1000, tried_rows=30))
    assert len(html) < 600_000
    page = _Page(html)
    assert "200 of 1,000 are shown" in page.said("labels")
    assert "replayed on the 30 of which every exit was read" in page.said("summary")
