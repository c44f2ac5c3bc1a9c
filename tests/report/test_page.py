"""The report: self-contained, escaped, repeatable, and right."""

import html
import html.parser
import json
import math
import re
import shutil
import struct

import pytest

from deepmaker_jax.backends.boards import BOARDS, limits
from deepmaker_jax.cli import main
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import write_document, write_json
from deepmaker_jax.report import devices, read_run, tables, write_report
from deepmaker_jax.report.plots import plot_front
from deepmaker_jax.report.view import front_records
from tests.report.conftest import ERROR, FLASH, HOSTILE, LATENCY, MARKUP, SCRIPT, write_longer

OUTPUTS = ("report.html", "front.png", "hypervolume.png")
VOID = ("meta",)


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text; fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read_page(run):
    """Writes a run's report and returns it parsed."""
    reader = Reader()
    reader.feed(write_report(run).read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def words(reader):
    return " ".join("".join(reader.words).split())


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("num", [0, 1, 2, 8, 40])
def test_a_run_of_any_size_has_a_page(make_run, num, finished):
    run = make_run(num, finished=finished)
    said = words(read_page(run))
    assert "How to reproduce it" in said
    assert ("still running" in said) == (not finished)
    assert ("No candidate has been measured yet" in said) == (num == 0)


def test_longer_trainings_are_listed(make_run):
    run = make_run(20)
    assert "Trained longer" not in words(read_page(run))
    member, other = read_run(run).front["members"][:2]
    done = write_longer(run, member, epochs=100)
    done.rename(done.with_name("<b>"))
    write_longer(run, other, epochs=7, ended=False)
    said = words(read_page(run))
    assert f"{member['id']}+10087.6552.0 KB85.12longer/<b>" in said
    assert f"{other['id']}+7---longer/{other['id']}-7" in said


def test_only_failures_have_a_page(make_run, tmp_path):
    run = make_run(8, finished=False)
    lines = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run / "ledger.jsonl").write_text(lines[-1])
    said = words(read_page(run))
    assert "No candidate has been measured yet" in said
    assert "loss is NaN in epoch 2" in said


def test_the_page_asks_for_nothing(make_run):
    run = make_run(40, hostile=True)
    page = read_page(run)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & {*page.tags}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "srcset", "data", "action", "background", "ping"), (tag, name)
        if name.endswith("href"):
            assert re.fullmatch(r"#[\w-]+", value), (tag, value)
        for target in re.findall(r"url\(([^)]*)\)", value or ""):
            assert target.startswith("#"), (tag, name)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|javascript:", text)
    assert "url(" not in text[: text.index("</style>")]


def test_links_lead_to_cards_and_ids_are_unique(make_run):
    page = read_page(make_run(40))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value[1:] for tag, name, value in page.attributes if name == "href" and tag == "a"}
    assert links == {i for i in ids if i.startswith("net-")}


def test_hostile_text_is_shown_not_run(make_run):
    run = make_run(40, hostile=True)
    page = read_page(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "alert(1)" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    said = words(page)
    assert f"{SCRIPT} {MARKUP} \\x1b]0;pwned\\x07\\x1b[31mred\\u202e\\x0a $\\frac" in said
    assert all("alert" not in (name or "") for _, name, _ in page.attributes)


def test_every_number_of_the_table_is_on_the_page(make_run):
    run = make_run(60)
    view = read_run(run)
    rows = tables.rows(view)
    page = write_report(run).read_text(encoding="utf-8")
    columns = tables.columns(view, rows, wide=True)
    for row in rows:
        cells = "".join(f"<td>{column.cell(row)}</td>" for column in columns[1:])
        assert cells in page
    for row in tables.published(view):
        assert f'{row.id}<span class="tag"' in page


def test_the_headline_is_chosen_by_validation_and_says_test(make_run):
    run = make_run(60)
    front = json.loads((run / "front.json").read_text())
    first, second, third = front["members"][:3]
    # By test accuracy it would be the third, which is the smallest.
    for member, params, validation, test in (
        (first, 90_000, 0.90, 0.91),
        (second, 30_000, 0.86, 0.70),
        (third, 10_000, 0.80, 0.90),
    ):
        member |= {"params": params, "val_accuracy": validation, "test_accuracy": test}
    front["members"] = [first, second, third]
    (run / "front.json").write_text(json.dumps(front))
    said = words(read_page(run))
    best = "Of 3 networks the most accurate in validation reaches 91.00 % on the test split with"
    assert f"{best} 90,000 parameters" in said
    assert "91.00 %test accuracy of the best in validation" in said
    small = "The smallest within 5 points of it in validation has 30,000: 3.00x smaller for 21.00"
    assert f"{small} points on the test split." in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepmaker", "in space deepmaker, minimising"),
        (
            "deepmaker[activation=relu|relu6|hard_swish;optimizer=sgd]",
            "in space deepmaker (narrowed: activation relu, relu6 or hard_swish; optimizer sgd), ",
        ),
        ("mine [new]", "in space mine [new], minimising"),
    ],
)
def test_a_space_is_named_in_words(make_run, name, said):
    run = make_run(9, space={"name": name, "genes": {}})
    assert said in words(read_page(run))


def test_costs_and_statuses_equal_a_hand_computation(make_run):
    run = make_run(40)
    num_members = len(json.loads((run / "front.json").read_text())["members"])
    page = write_report(run).read_text(encoding="utf-8")
    # 40 measurements of 10, 90 and 2 s and 2,000 examples; one was never trained.
    search = ["search", "40", "78.0k", "0.11", "1.00", "0.02", "1.13"]
    assert "".join(f"<td>{cell}</td>" for cell in search) in page
    final = ["final training", f"{num_members}", tables.text.short(num_members * 1e6)]
    final += [f"{num_members * s / 3600:.2f}" for s in (10, 4000, 0, 4010)]
    assert "".join(f"<td>{cell}</td>" for cell in final) in page
    for status, count in (("ok", 35), ("diverged", 2), ("failed", 2), ("infeasible", 1)):
        assert f"<td>{status}</td><td>{count}</td><td>{100 * count / 40:.2f} %</td>" in page


def test_the_page_says_how_to_reproduce_it(make_run):
    said = words(read_page(make_run(9)))
    for expected in (
        "python -m experiments.cifar10 small --seed 0 --data DIR --out RUN",
        "yes: the same command on the same machine and versions gives the same front",
        "jax 0.10.2, python 3.12.1",
        "d41d8cd98f00b204",
        "45,000 train, 5,000 validation, 10,000 test",
    ):
        assert expected in said
    program = {"size_class": ["small-3x3", "large-3x3"], "threads": None}
    listed = words(read_page(make_run(9, name="listed", program=program)))
    assert "size_class (small-3x3, large-3x3), threads none" in listed
    changed = make_run(9, name="other", reproducible=False, reason="another platform")
    assert "no: another platform" in words(read_page(changed))


def test_the_same_run_gives_the_same_bytes(make_run):
    first, second = make_run(30), make_run(30, name="moved elsewhere")
    write_report(first)
    once = [(first / name).read_bytes() for name in OUTPUTS]
    write_report(first)
    write_report(second)
    assert [(first / name).read_bytes() for name in OUTPUTS] == once
    assert [(second / name).read_bytes() for name in OUTPUTS] == once


@pytest.mark.parametrize("name", ["ledger.jsonl", "front.json", "robustness"])
def test_a_page_is_not_drawn_again_from_less_than_it_tells_of(make_run, name, capsys):
    run = make_run(30)
    page = write_report(run).read_bytes()
    shutil.move(run / name, run / "aside")
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr()
    assert "report.html tells of more than" in said.err
    assert (name in said.err, "or move report.html away" in said.err) == (True, True)
    assert (run / "report.html").read_bytes() == page
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() != page


def test_a_page_is_drawn_again_while_a_run_trains_its_front(make_run):
    run = make_run(30)
    (run / "front.json").unlink()
    (run / "checkpoints").mkdir()
    for _ in range(2):
        assert main(["report", str(run)]) == 0


def test_pngs_stand_beside_the_page(make_run):
    run = make_run(9)
    assert write_report(run) == run / "report.html"
    for name in OUTPUTS[1:]:
        data = (run / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width >= 1600
        assert 0.3 <= height / width <= 0.7


def test_three_objectives_have_a_panel_for_each_pair(make_run):
    run = make_run(60, objectives=[ERROR, FLASH, LATENCY])
    said = words(read_page(run))
    view = read_run(run)
    svg = plot_front(view).svg
    assert "latency on &lt;my&gt; board (ms)" in svg
    good = [r for r in view.records if r["status"] == "ok"]
    # Every candidate twice, every member's test error twice, and one published network.
    assert svg.count('class="hit"') == 2 * len(good) + 2 * len(front_records(view)) + 1
    assert "minimising error, flash bytes and latency on <my> board." in said
    assert "by <hand>, with a stopwatch" in said


def test_objectives_of_ones_own_need_no_error(make_run):
    run = make_run(20, objectives=[LATENCY, FLASH])
    svg = plot_front(read_run(run)).svg
    assert "test error" not in svg
    assert "published" not in svg
    assert "latency on &lt;my&gt; board (ms)" in svg
    assert words(read_page(run)).count("How to reproduce it") == 1


def test_each_point_has_its_numbers_and_members_a_link(make_run):
    view = read_run(make_run(40))
    members = front_records(view)
    svg = plot_front(view, links={r["id"]: f"net-{i}" for i, r in enumerate(members)}).svg
    for i, record in enumerate(members):
        error, size = record["objectives"]["error"], record["objectives"]["flash_bytes"]
        words = f"{record['id']}, generation {record['generation']}: error {100 * error:.2f} %"
        assert f"<title>{words}, flash_bytes {tables.text.size(size)}</title>" in svg
        assert svg.count(f'<a href="#net-{i}">') == 1
    titles = svg.count("<title>")
    good = sum(r["status"] == "ok" for r in view.records)
    assert titles == good + len(members) + 1


def test_points_lie_where_the_axes_say(make_run):
    """Equal steps on the log2 axis are equal distances; a lower error is further down."""
    view = read_run(make_run(40))
    svg = plot_front(view).svg
    spots = {}
    for x, y, id in re.findall(
        r'<circle class="hit" cx="([\d.]+)" cy="([\d.]+)" r="6"><title>(\w{12}), generation', svg
    ):
        spots[id] = (float(x), float(y))
    a, b, c = [r for r in view.records if r["status"] == "ok"][:3]

    def share(i, f):
        at = [spots[r["id"]][i] for r in (a, b, c)]
        values = [f(r["objectives"]) for r in (a, b, c)]
        return (at[1] - at[0]) / (at[2] - at[0]), (values[1] - values[0]) / (values[2] - values[0])

    drawn, expected = share(0, lambda o: math.log2(o["flash_bytes"]))
    assert drawn == pytest.approx(expected, abs=0.02)
    drawn, expected = share(1, lambda o: o["error"])
    assert drawn == pytest.approx(expected, abs=0.02)
    assert (spots[a["id"]][1] > spots[b["id"]][1]) == (
        a["objectives"]["error"] < b["objectives"]["error"]
    )


def test_a_damaged_arch_is_said_not_drawn(make_run):
    run = make_run(9)
    front = json.loads((run / "front.json").read_text())
    front["members"][0]["arch"] = {"stages": SCRIPT}
    write_document(run / "front.json", front)
    assert "Not drawn: not an architecture" in words(read_page(run))


def test_the_manifest_is_listed_with_failures(make_run):
    said = words(read_page(make_run(9)))
    assert "model_int8.tflite" in said
    assert "99.00 %" in said
    assert "failed: vela: <script>" in said


def test_a_target_says_what_it_made_and_why_not(make_run):
    run = make_run(9)
    said = words(read_page(run))
    for expected in (
        "ok1 of 2 files, 53.0 KB",  # arm: one built, not run
        "ok2 of 2 files, 53.0 KBfastest: tflite_int8 0.2 ms",
        "failed3 of 4 files, 54.0 KBarena 102.0 KB",
        "unsupported0 of 1 files, 0 B",
        "armunsupportedbuilt; running it needs a 32-bit Arm1",
        "fpgaunsupportedpip install hls4ml1",
        "mcufailedvela: <script>",
        "mcu/2 files more2.0 KB",
        "openvino latency 1 thread 1.5 ms",
    ):
        assert expected in said, expected
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'title="&lt;script&gt;alert(1)' in page


def test_boards_are_judged_by_the_measured_arena_or_its_estimate(make_run):
    run = make_run(9)
    view = read_run(run)
    measured, estimated = tables.rows(view)[:2]
    need = devices.demand(view, measured)
    assert need == (measured.int8_bytes, 104_432, True)
    for name in BOARDS:
        flash, arena = limits(name)["flash_bytes"], limits(name)["arena_bytes"]
        assert devices.over(name, devices.Demand(flash, arena, True)) is None
        assert devices.over(name, devices.Demand(flash, arena + 1, True)) == "SRAM"
        assert devices.over(name, devices.Demand(flash + 1, arena + 1, True)) == "flash, SRAM"
    other = devices.demand(view, estimated)
    assert other == (estimated.int8_bytes, estimated.arena_bytes, False)
    said = words(read_page(run))
    assert f"{measured.id}{tables.text.size(need.flash_bytes)}102.0 KB" in said
    assert f"{tables.text.size(other.arena_bytes)}estimate" in said


def test_a_damaged_manifest_is_one_line(make_run):
    run = make_run(9)
    (path,) = (run / "models").glob("*/manifest.json")
    write_json(path, {"id": "0", "files": {"model_int8.tflite": {"status": SCRIPT}}})
    with pytest.raises(InputError, match=r"model_int8\.tflite has no status"):
        write_report(run)


def test_foreign_scripts_do_not_warn(make_run):
    name = "网络 $x$ \u200b"
    run = make_run(9, references=[{"name": name, "params": 10, "accuracy": 0.9, "bytes": 9000}])
    assert "网络 $x$ \\u200b" in words(read_page(run))


def test_hostile_objectives_are_plotted_under_their_name(make_run):
    run = make_run(9, objectives=[ERROR | {"name": HOSTILE}, FLASH | {"unit": HOSTILE}])
    svg = plot_front(read_run(run)).svg
    assert "<script" not in svg
    assert f">{html.escape(SCRIPT, quote=False)} {MARKUP}" in svg
    assert svg.count('class="hit"') == 8
    assert words(read_page(run)).count("How to reproduce it") == 1
