"""The page of traces, read back by a parser of its own."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from probes.records import Grade, Refusal
from probes.report import CHOOSERS, TracedRow, TracedToken, trace_page

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements of a page: tag, attributes, own text, and the whole text with that inside."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.elements = [], []
        self.feed(path.read_text())
        assert not self.open, "an element was not closed"

    def handle_starttag(self, tag, attrs):
        element = {
            "tag": tag,
            "text": "",
            "whole": "",
            "inside": [e["n"] for e in self.open],
            **dict(attrs),
        }
        element["n"] = len(self.elements)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1]["text"] += data
        for element in self.open:
            element["whole"] += data

    def of(self, kind):
        return [e for e in self.elements if kind in (e.get("class") or "").split()]


def read(element):
    return re.sub(r"\s+", " ", element["whole"])


ROWS = [
    TracedRow(
        "Q 9 b1 n0 >",
        (
            TracedToken("b1", "base", "", 0.9, 0.8, (("b1", 0.9), ("n0", 0.06))),
            TracedToken(" =", "base", "value", 0.7, None),
            TracedToken("18", "steered", "value", 0.25, 0.6, (("17", 0.5),), (("18", 0.6),)),
            TracedToken("\n", "tuned", "check", 1e-7, 1.0),
            TracedToken("\n", "tuned", "", 0.0, 1.0),
        ),
        "right",
        "routed",
    ),
    TracedRow("Q 1 a2 >", (TracedToken("ans", "base"), TracedToken("ans", "base")), "wrong"),
]


@pytest.fixture
def page(tmp_path):
    return Page(trace_page(ROWS, tmp_path / "sub" / "trace.html", "Who chose", {"seed": 3}))


def test_every_token_is_there_in_order_and_coloured_by_its_chooser_and_category(page):
    seen = [e["text"] for e in page.of("w")]
    assert seen == ["b1", " =", "18", "⏎", "⏎", "ans", "ans"]
    boxes = [page.elements[e["inside"][-1]]["class"].split() for e in page.of("w")]
    expected = [t for row in ROWS for t in row.tokens]
    assert [b[1] for b in boxes] == [t.chooser for t in expected]
    assert [b[2] if b[2:] else "" for b in boxes] == ["", "c1", "c1", "c2", "", "", ""]
    styles = next(e["text"] for e in page.elements if e["tag"] == "style")
    assert all(f".{name} {{ background" in styles for name in CHOOSERS)
    assert ".c1 {" in styles
    assert "prefers-color-scheme: dark" in styles


def test_the_pointer_over_a_token_shows_what_both_models_found_likely(page):
    tips = [read(e) for e in page.of("tip")]
    assert len(tips) == 7
    assert re.search(r"18 .*chosen by steered.* category value", tips[2])
    assert re.search(r"25\.0%.* 17 .*50\.0%.* 60\.0%.* 18 .*60\.0%", tips[2])
    assert "not asked" in tips[1]
    assert "<0.001%" in tips[3]
    assert " 0.0%" in tips[4]
    assert tips[5].count("not asked") == 2


def test_only_three_of_the_likeliest_are_shown(tmp_path):
    many = tuple((f"w{i}", 0.2) for i in range(5))
    row = TracedRow("q", (TracedToken("a", "base", "", 0.2, 0.2, many, many[2:]),))
    page = Page(trace_page([row], tmp_path / "t.html", "t"))
    shown = [e["text"] for e in page.elements if e["tag"] == "code"]
    assert shown == ["q", "w0", "w1", "w2", "w2", "w3", "w4"]


def test_the_legend_counts_and_the_rows_can_be_picked(page):
    legends = [read(e) for e in page.of("legend")]
    for name, count in (("base", 4), ("steered", 1), ("tuned", 2)):
        assert re.search(rf"{name} .*: {count} of 7 tokens", legends[0])
    assert "value (2)" in legends[1]
    assert "check (1)" in legends[1]
    rows = [e for e in page.elements if e["tag"] == "details"]
    assert ["open" in r for r in rows] == [True, False]
    options = [e["text"] for e in page.elements if e["tag"] == "option"]
    assert options == ["all settings", "routed", "plain", "all grades", "right", "wrong"]
    assert [(r["data-setting"], r["data-grade"]) for r in rows] == [("1", "1"), ("2", "2")]


def test_nothing_comes_from_elsewhere(page, tmp_path):
    text = (tmp_path / "sub" / "trace.html").read_text()
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    assert not [e for e in page.elements if e["tag"] in ("link", "img", "iframe", "base")]
    assert not [e for e in page.elements if "src" in e or "href" in e]
    (policy,) = [e for e in page.elements if "http-equiv" in e]
    assert policy["content"].startswith("default-src 'none'")


EVIL = "</span><script>alert(1)</script>\"'><b onmouseover=x>&amp;"


def test_what_a_model_writes_is_text_and_never_markup(tmp_path):
    token = TracedToken(EVIL, "base", EVIL, 0.5, 0.5, ((EVIL, 0.5),), ((EVIL, 0.5),))
    row = TracedRow(EVIL, (token, token), EVIL, EVIL)
    plain = TracedRow("q", (TracedToken("a", "base"),))
    page = Page(trace_page([row, plain], tmp_path / "t.html", EVIL, {EVIL: EVIL}))
    assert len([e for e in page.elements if e["tag"] == "script"]) == 1  # our own
    assert not [e for e in page.elements if "onmouseover" in e]
    assert [e["text"] for e in page.of("w")] == [EVIL, EVIL, "a"]
    assert next(e["text"] for e in page.elements if e["tag"] == "h1") == EVIL
    texts = [e["text"] for e in page.elements if e["tag"] in ("dt", "dd", "code", "title")]
    assert texts.count(EVIL) == 1 + 2 + 1 + 4


def test_a_ninth_category_has_a_number_of_its_own(tmp_path):
    tokens = tuple(TracedToken("a", "base", f"kind {i}") for i in range(9))
    page = Page(trace_page([TracedRow("q", tokens)], tmp_path / "t.html", "t"))
    boxes = [page.elements[e["inside"][-1]] for e in page.of("w")]
    assert boxes[0]["class"] == boxes[8]["class"]
    answers = page.of("answer")[0]["n"]
    numbers = [e["text"] for e in page.elements if e["tag"] == "sup" and answers in e["inside"]]
    assert numbers == [str(i) for i in range(1, 10)]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    out = trace_page(ROWS, tmp_path / "t.html", "Old")
    wrong = replace(ROWS[0], tokens=(replace(ROWS[0].tokens[0], chooser="judge"),))
    with pytest.raises(Refusal, match="'judge' is not known; there are base, steered, tuned"):
        trace_page([wrong], out, "New")
    assert "<title>Old</title>" in out.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["t.html"]
    trace_page(ROWS, out, "New")
    assert "<title>New</title>" in out.read_text()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "needs at least one row"),
        ([ROWS[0], TracedRow("Q 5 >", (), "", "push")], r"row 1 .*'push'.* a trace with no steps"),
        ([TracedRow("q", (TracedToken("a", "base", "", -2.3),))], "-2.3 is no probability"),
        ([TracedRow("q", (TracedToken("a", "base", "", 0.1, float("nan")),))], "give None"),
        ([TracedRow("q", (TracedToken("a", "base", base_top=(("b", 1.5),)),))], "1.5 is no"),
    ],
)
def test_a_trace_that_cannot_be_shown_is_refused(tmp_path, rows, message):
    with pytest.raises(Refusal, match=message):
        trace_page(rows, tmp_path / "t.html", "t")
    assert not list(tmp_path.iterdir())


def test_a_grade_is_shown_by_its_name(tmp_path):
    row = replace(ROWS[0], grade=Grade.RIGHT)
    page = Page(trace_page([row], tmp_path / "t.html", "t"))
    (summary,) = [e for e in page.elements if e["tag"] == "summary"]
    assert read(summary) == "Q 9 b1 n0 > routed, right; base 2, steered 1, tuned 2 of 5"
