"""The page of a probe: one file that needs no other, whole and escaped, with every number, and nothing for parts not run."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from hfftools.probe import html_page
from hfftools.probe.measures import PARTS, PERCENT
from hfftools.probe.results import ProbeResults

VOID = {"meta", "img", "br", "hr", "link", "input"}
MEASURES = [measure for part in PARTS for measure in part.measures]


def page(stored: dict, *path: str) -> str:
    return html_page.page(ProbeResults.from_json(stored), *path)


def table(stored: dict) -> str:
    return html_page.table(ProbeResults.from_json(stored))


def full(count: int = 4) -> dict:
    """The content of a probe.json in which no two numbers of a layer are alike."""
    rows = []
    for layer in range(count):
        row = {"layer": layer, "diverged": []}
        for place, measure in enumerate(MEASURES):
            number = 0.9 - place / 40 - layer / 300
            row |= {measure.key: number, f"{measure.key}_low": number - 0.012, f"{measure.key}_high": number + 0.013}
        rows.append(row | {"norm_std": 0.25})
    chosen = {"layers": [1, 2], "stop": 2, "best": 2, "reason": "Since it is so.", "yaml": "fuse: {name: hff}\n"}
    names = [*map(str, range(count)), "mel"]
    matrix = [[1.0 if a == b else 0.5 for a in names] for b in names]
    return {
        "upstream": "tiny",
        "hash": "7bb8",
        "train": "data/train",
        "dev": "data/dev",
        "assumed": ["units: 29 characters"],
        "layers": rows,
        "cka": {"names": names, "matrix": matrix},
        "facts": {"dev_utterances": 12345},
        "recommendation": chosen,
    }


@pytest.fixture(scope="module")
def whole() -> str:
    return page(full(), "exp/a b/recommendation.yaml")


class Reader(HTMLParser):
    """Balance of the tags, what they refer to, the table of layers, and all text."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.sources, self.alts, self.rows, self.text = [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes[key] for key in ("src", "srcset", "data", "action") if key in attributes]
        self.alts += [attributes.get("alt")] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert tag not in VOID and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_the_page_needs_nothing_beside_it(whole):
    read = Reader(whole)
    assert len(read.sources) == 3 and all(source.startswith("data:image/svg+xml;base64,") for source in read.sources)
    assert read.links and all(link.startswith("https://arxiv.org/abs/") for link in read.links)
    assert not re.search(r"@import|url\(|<script|<link|<iframe|<object", whole)
    assert all(read.alts)
    assert whole.startswith("<!DOCTYPE html>") and '<html lang="en">' in whole and '<meta charset="utf-8">' in whole
    assert "<title>What the layers of tiny know</title>" in whole


def test_every_layer_and_every_measure_is_there(whole):
    of, read = full(), Reader(whole)
    rows = {row[0]: row for row in read.rows}
    for row in of["layers"]:
        cells = rows[str(row["layer"])][1:]
        for measure, cell in zip(MEASURES, cells[:-1], strict=True):
            number = row[measure.key] * (100 if measure.key in PERCENT else 1)
            assert cell.startswith(f"{number:.{measure.digits}f}"), measure.key
    assert rows["2"][-1] == "best; recommended" and rows["0"][-1] == ""
    for measure in MEASURES:
        assert measure.says in read.text
    for part in PARTS:
        assert all(name in read.text for name, _ in part.sources)
    for said in ("12,345", "Since it is so.", "fuse: {name: hff}", "Fuse layers 1, 2", "units: 29 characters"):
        assert said in read.text
    assert "hff-train exp/fusion --config 'exp/a b/recommendation.yaml'" in read.text
    assert "Nothing above layer 2" in read.text


def test_the_best_of_a_column_is_bold_where_one_direction_is_better(whole):
    body = whole.split("<tbody>")[1]  # all measures fall from layer to layer
    first, *_, last = re.findall(r"<tr.*?</tr>", body.split("</tbody>")[0])
    assert len(re.findall("<b>", last)) == sum(measure.better < 0 for measure in MEASURES)
    assert len(re.findall("<b>", first)) == sum(measure.better > 0 for measure in MEASURES)


def test_odd_names_are_escaped():
    odd = "/a/<b>\"'&amp; $x ${y} ü</b>"
    of = (
        full()
        | dict.fromkeys(["upstream", "hash", "train", "dev"], odd)
        | {"assumed": [odd], "facts": {"x": odd}, "cka": None}
    )
    of["recommendation"] |= {"reason": odd, "yaml": odd}
    of["layers"][0]["diverged"] = [odd]
    text = page(of, odd)
    assert "</b>" not in re.sub(r"<b>[\d.]+</b>", "", text)
    assert Reader(text).text.count(odd) >= 10
    assert table(of).replace("\n  ", " ").count(odd) >= 5


def test_parts_that_were_not_run_leave_nothing():
    of = full()
    keep = {"layer", "diverged", "mi_phone"}
    of["layers"] = [{key: row[key] for key in keep} for row in of["layers"]]
    for key in ("cka", "recommendation"):
        del of[key]
    of["layers"][1]["mi_phone"] = None
    of["layers"][2]["isoscore"] = None
    read = Reader(page(of))
    assert len(read.sources) == 1
    assert ["phone"] in read.rows and ["1", "–", ""] in read.rows
    for gone in ("PWCCA", "IsoScore", "WER", "Recommendation"):
        assert gone not in read.text.split("How to read this")[0]
    lines = table(of).splitlines()
    assert [line.split() for line in lines[-5:]] == [
        ["layer", "phone"],
        ["0", "0.65"],
        ["1", "–"],
        ["2", "0.64"],
        ["3", "0.64"],
    ]


def test_a_layer_alone_and_nothing_measured_still_read():
    of = full(1) | {"recommendation": None, "cka": None, "facts": {}}
    assert "<b>" not in page(of), "there is nothing to choose from"
    of["layers"] = [{"layer": 0}]
    assert Reader(page(of)).sources == []
    assert table(of).splitlines()[-1].split() == ["0"]


def test_the_plain_table_fits_a_terminal():
    of = full(50)
    of["layers"][3] |= {"wer": None, "cer": None, "diverged": ["asr"]}
    text = table(of)
    assert max(map(len, text.splitlines())) <= 110
    rows = [line.split() for line in text.splitlines() if line[:5].strip().isdecimal()]
    assert len(rows) == 100, "two tables"
    for row in of["layers"]:
        mine = [number for line in rows if line[0] == str(row["layer"]) for number in line]
        for measure in MEASURES:
            number = row[measure.key]
            scale = 100 if measure.key in PERCENT else 1
            assert ("–" if number is None else f"{scale * number:.{measure.digits}f}") in mine, measure.key
    assert "(70.8" not in text and "(88.8–91.3)" in text
    assert "diverged: asr" in text and "best; recommended" in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not on the path")
def test_a_browser_shows_every_picture(tmp_path):
    check = """<script>onload = () => { document.title = JSON.stringify({
        widths: [...document.images].map(image => image.naturalWidth),
        rows: document.querySelectorAll(".layers tbody tr").length,
        over: document.documentElement.scrollWidth - innerWidth}) }</script>"""
    copy = tmp_path / "index.html"
    copy.write_text(page(full(25)).replace("</body>", check + "</body>"), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=800,900", "--virtual-time-budget=5000", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert len(seen["widths"]) == 3 and min(seen["widths"]) > 300
    assert seen["rows"] == 25
    assert seen["over"] <= 0, "the page is wider than the window"
