"""The page is whole, self-contained, readable, and the same bytes for the same results."""

import base64
import html.parser
import re
import xml.etree.ElementTree
import zlib

import matplotlib
import matplotlib.image
import matplotlib.text
import numpy as np
import pytest

from robustgen.evaluation import images, plots, report
from robustgen.evaluation.draw import COLORS
from robustgen.evaluation.results import Run
from robustgen.evaluation.summary import summarize

from .synthetic import made_run, made_runs

VOID = {"meta", "img", "br"}
FACTS = {"run": "7f3a91c2", "commit": "abc <dirty>", "command": "python x.py --config.loss.beta=3 && echo"}


def written(folder, runs=None, **changes):
    arguments = {"title": "A & B", "facts": FACTS, "config_text": "eps: 0.1", "diff_text": "eps: 0.2 → 0.1", "eps": 0.1}
    return report.write(folder, runs or made_runs(2), **arguments | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    written(folder, [*made_runs(2), Run("PGD-AT", 1, {"beta": 2.0}, None, failure="loss < 0 & nan")])
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text()


class Balanced(html.parser.HTMLParser):
    """Follows open tags; SVG elements may close themselves."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.seen = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_html_is_balanced_and_ids_are_unique(text):
    parser = Balanced()
    parser.feed(text)
    assert parser.open == [] and len(parser.ids) == len(set(parser.ids)) > 10
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert referenced <= set(parser.ids) and referenced


def test_nothing_is_requested_and_nothing_runs(text):
    assert "http" not in text and "<script" not in text and "@import" not in text and "javascript" not in text
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert sources and all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert len(text.encode()) <= 2_000_000


def test_all_parts_are_there(text):
    for heading in ("Accuracy", "The trade-off", "Robustness against the radius", "Generalization gaps", "Training",
                    "Adversarial examples", "Failed and missing", "Configuration"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert "A &amp; B" in text and "abc &lt;dirty&gt;" in text and "loss &lt; 0 &amp; nan" in text
    assert "--config.loss.beta=3 &amp;&amp; echo" in text and "seed 1" in text
    for caption in re.findall(r"<figcaption>(.*?)</figcaption>", text):
        assert "eed" in caption  # says how many seeds, or which
    assert text.count("<svg") == 4 and text.count('role="img"') == 4
    assert all(alt for alt in re.findall(r'<img alt="([^"]*)"', text))


def test_same_results_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")  # a user's style changes nothing
    written(tmp_path, [*made_runs(2), Run("PGD-AT", 1, {"beta": 2.0}, None, failure="loss < 0 & nan")])
    names = {file.name for file in folder.iterdir()}
    assert names == {"report.html", "table.md", "table.tex", "results.csv", "tradeoff.svg", "radius.svg", "gaps.svg",
                     "training.svg"}  # fmt: skip
    assert names == {file.name for file in tmp_path.iterdir()}
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_a_curve_that_does_not_reach_zero_is_a_warning(text, tmp_path):
    assert 'class="warning"' not in text
    run = made_run("A", {}, 0.9, 0.5, 0.0, 0)
    curve = run.curve._replace(robust=run.curve.robust | run.columns["clean"])
    stuck = written(tmp_path, [run._replace(curve=curve)]).read_text()
    assert 'class="warning"' in stuck
    assert re.search(r"does not reach 0 at the largest radius for A .(89|90)\.\d %", stuck)


def test_a_bare_run_makes_a_report(tmp_path):
    run = made_run("A", {}, 0.9, 0.5, 0.0, 0)
    bare = {name: value for name, value in run.columns.items() if "IBP" not in name}
    page = written(tmp_path, [Run("A", 0, {}, bare)], diff_text="", eps=None).read_text()
    parser = Balanced()
    parser.feed(page)
    assert "<h2>Training</h2>" not in page and "<h2>Generalization gaps</h2>" not in page and "nan" not in page


def luminance(color: str) -> float:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast(text):
    """WCAG AA: 4.5 for text, 3 for the lines and marks of a figure, in both schemes."""
    schemes = [dict(re.findall(r"--(\w+):(#\w+)", block)) for block in re.findall(r":root\{(--.*?)\}", text, re.S)]
    light, dark = ({k: v if len(v) == 7 else "#" + 2 * v[1:] for k, v in scheme.items()} for scheme in schemes[:2])
    assert light["paper"] != dark["paper"]
    for scheme in (light, dark):
        for name in ("ink", "quiet", "alarm"):
            assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
        assert contrast(scheme["ink"], scheme["wash"]) >= 4.5
        for color in COLORS:
            assert contrast(color, scheme["paper"]) >= 3, color


def test_png_is_what_it_shows(tmp_path):
    draw = np.random.default_rng(0)
    for shape in [(5, 7), (5, 7, 1), (4, 6, 3)]:
        image = draw.random(shape)
        (tmp_path / "x.png").write_bytes(images.png(image))
        back = matplotlib.image.imread(tmp_path / "x.png")
        np.testing.assert_allclose(back.reshape(shape), image, atol=0.5 / 255 + 1e-6)
    assert base64.b64decode(images.data_uri(image).split(",")[1]) == images.png(image)
    assert zlib.crc32(images.png(image)) == zlib.crc32(images.png(image.copy()))
    shown, factor = images.perturbation(np.zeros((2, 2)), np.array([[0.1, -0.1], [0.0, 0.05]]))
    np.testing.assert_allclose(shown, [[1.0, 0.0], [0.5, 0.75]])
    assert factor == 5.0 and images.perturbation(np.ones((2, 2)), np.ones((2, 2)))[1] == 1.0


@pytest.mark.parametrize("num_rows", [1, 2, 3, 14])
def test_figures_cut_nothing_off(num_rows):
    summary = summarize([made_run("TRADES", {"beta": float(i)}, 0.9, 0.5, 0.1, 0) for i in range(num_rows)])
    drawn = [plots.tradeoff(summary), *(plot(summary.rows) for plot in (plots.training, plots.gaps))]
    for figure in (*drawn, plots.radius(summary.rows, 0.1)):
        figure.draw_without_rendering()
        frame = figure.bbox
        boxes = [legend.get_window_extent() for legend in figure.legends]
        shown = [ax for ax in figure.axes if ax.get_visible()]
        boxes += [label.get_window_extent() for ax in shown for label in (ax.title, *ax.texts)]
        for box in boxes:
            assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1
            assert box.y0 >= frame.y0 - 1 and box.y1 <= frame.y1 + 1


def test_labels_of_the_trade_off_do_not_overlap():
    """Ten settings, some close together: no two names cover each other, nor does a name leave its axes."""
    points = [(0.9 - 0.004 * i, 0.5 + 0.3 * (1 - np.exp(-i))) for i in range(10)]
    runs = [made_run("TRADES", {"beta": float(i)}, c, r, 0.0, 0) for i, (c, r) in enumerate(points)]
    figure = plots.tradeoff(summarize(runs))
    figure.draw_without_rendering()
    names = set()
    for ax in figure.axes:
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]  # without the lines to the points
        names |= {text.get_text() for text in ax.texts}
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert names == {f"β={i}" for i in range(10)}


def test_standalone_figures_are_xml(folder):
    for file in folder.glob("*.svg"):
        assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")
        assert "<metadata>" not in file.read_text()
