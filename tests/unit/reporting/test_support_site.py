"""The support site: what many runs are merged to, and what somebody finds in it, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Ended, Stage, Status
from pytest_hfaccel.reporting import JOURNAL, Journal
from pytest_hfaccel.reporting.evidence import Evidence, read_evidence, write_site
from pytest_hfaccel.reporting.html import make_site_page
from pytest_hfaccel.reporting.html.page_data import numbers_of
from pytest_hfaccel.upstream.transformers import documented_checkpoints
from tests.unit.reporting.shown_page import Shown, serious_findings

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
BROKEN = (
    "AModel works on cpu fp32 with 5.10.0; does not work on openvino:CPU fp32 (cannot be converted: exporter) "
    "with 5.10.0."
)
DATA = Path(__file__).parents[3] / "docs" / "data"
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
RIGHT = {"rel_l2": 2e-7, "tolerance": {"rel_l2": 1e-5}}
WRONG = CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "logits: rel-L2 0.2 > 1e-05", {"rel_l2": 0.2})


def cell(model: str, device: str, *checks: CheckOutcome, dtype: str = "fp32", **changes: Any) -> CellResult:
    kind, _, name = model.partition("/")
    facts = {"architecture": name or kind, "module": "auto", "task": "fill-mask", "weights": "tiny", **changes}
    slug = device.replace(":", "").lower()
    return CellResult(f"{model}-{slug}-{dtype}", model, device=device, dtype=dtype, checks=list(checks), **facts)


def write_run(reports: Path, number: int, release: str, *cells: CellResult, command: str = "pytest") -> Path:
    folder = reports / "runs" / f"{number:04d}-2026010{number}T000000Z-abcd"
    header = {
        "id": folder.name,
        "started": f"2026-01-0{number}T00:00:00+00:00",
        "command": command,
        "versions": {"transformers": release, "torch": "2.13.0"},
        "machine": {"cpu": "Some CPU", "cores": 2},
    }
    journal = Journal(folder / JOURNAL, header)
    for each in cells:
        journal.append(each)
    journal.close("2026-01-09T00:00:00+00:00", Ended.FINISHED)
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases: with the newer one AModel broke on OpenVINO, BModel was mended, and CModel is new."""
    folder = tmp_path_factory.mktemp("reports")
    right, padding = CheckOutcome("parity", measures=RIGHT), CheckOutcome("padding_invariance")
    padded = CheckOutcome("padding_invariance", Status.XFAILED, Stage.COMPARE, "no mask", cause="transformers")
    no_timm = CheckOutcome("placement", Status.UNAVAILABLE, Stage.RESOLVE, "needs timm", cause="package")
    converts = CheckOutcome("placement", Status.ERROR, Stage.CONVERT, "cannot be converted", cause="exporter")
    older = [cell("a/AModel", "cpu", right, padding), cell("a/AModel", "openvino:CPU", right)]
    write_run(folder, 1, "5.9.0", *older, cell("b/BModel", "cpu", WRONG), cell("d/DModel", "cpu", no_timm))
    newer = [cell("a/AModel", "cpu", right, padding), cell("a/AModel", "openvino:CPU", converts)]
    newer += [cell("b/BModel", "cpu", right, padded), cell("c/CModel", "cpu", right), cell("d/DModel", "cpu", no_timm)]
    write_run(folder, 2, "5.10.0", *newer, command="pytest --all-models")
    measured = CheckOutcome("performance", measures={"median_ms": 3.0, "samples_per_second": 333.0})
    hub = cell("org/a-large", "cpu", right, measured, architecture="AModel", weights="pretrained")
    write_run(folder, 3, "5.10.0", hub, cell("a/AModel", "cpu", CheckOutcome("generation")))
    return folder


@pytest.fixture(scope="module")
def evidence(reports: Path) -> Evidence:
    return read_evidence([reports])


# What runs are merged to.


def test_releases_are_in_order_and_runs_are_dated(evidence: Evidence) -> None:
    assert evidence.releases == ["5.9.0", "5.10.0"]
    assert [run.started[:10] for run in evidence.runs] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_later_run_of_some_checks_adds_to_an_earlier_one(evidence: Evidence) -> None:
    (record,) = [
        each
        for each in evidence.records
        if (each.result.model, each.result.device, each.release) == ("a/AModel", "cpu", "5.10.0")
    ]
    assert [check.name for check in record.result.checks] == ["parity", "padding_invariance", "generation"]
    assert record.runs == (1, 2)
    assert not record.is_one_of


def test_what_a_cell_was_before_with_the_same_release_is_kept(tmp_path: Path) -> None:
    write_run(tmp_path, 1, "5.9.0", cell("a/AModel", "cpu", WRONG))
    write_run(tmp_path, 2, "5.9.0", cell("a/AModel", "cpu", CheckOutcome("parity")))
    (record,) = read_evidence([tmp_path]).records
    assert record.result.status == Status.PASSED
    assert record.before == ((0, Status.FAILED),)
    assert record.runs == (1,)


def test_a_matrix_keeps_numbers_and_says_which_run_each_result_is_from(reports: Path, tmp_path: Path) -> None:
    folders = sorted((reports / "runs").iterdir())
    matrix = tmp_path / "matrix.json.xz"
    assert main(["support", *(str(each / JOURNAL) for each in folders), "--json", str(matrix)]) == 0
    whole, kept = read_evidence([reports]), read_evidence([matrix])
    newest = [each for each in whole.records if each.release == "5.10.0"]
    assert newest
    for before, after in zip(newest, kept.records, strict=True):
        assert (after.result.model, after.result.weights) == (before.result.model, before.result.weights)
        assert [kept.runs[number].started for number in after.runs] == [
            whole.runs[number].started for number in before.runs
        ]
        assert not after.is_one_of
        assert numbers_of(after.result)[:5] == numbers_of(before.result)[:5]


def test_of_an_old_matrix_the_runs_are_named_that_may_have_had_a_result(reports: Path, tmp_path: Path) -> None:
    folders = sorted((reports / "runs").iterdir())
    matrix = tmp_path / "matrix.json"
    assert main(["support", *(str(each / JOURNAL) for each in folders[1:]), "--json", str(matrix)]) == 0
    data = json.loads(matrix.read_text(encoding="utf-8"))
    for model in data["models"].values():
        for found in model["cells"].values():
            del found["runs"]
    matrix.write_text(json.dumps(data), encoding="utf-8")
    evidence = read_evidence([matrix, folders[0]])
    both = [each for each in evidence.records if each.result.model == "a/AModel" and each.result.device == "cpu"]
    assert [(each.release, each.runs, each.is_one_of) for each in both] == [
        ("5.9.0", (0,), False),
        ("5.10.0", (1, 2), True),
    ]


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no journal of a run here"):
        read_evidence([tmp_path])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_evidence([tmp_path / "absent.json"])
    with pytest.raises(ConfigError, match="no finished cell"):
        read_evidence([write_run(tmp_path, 1, "5.9.0")])


def test_the_kept_sweeps_have_three_releases_and_every_class() -> None:
    evidence = read_evidence(sorted(DATA.glob("support_*.json.xz")))
    assert evidence.releases == ["5.16.0", "5.23.0", "5.24.0"]
    swept = [each for each in evidence.records if each.result.module == "auto"]
    models = {name: {each.result.model for each in swept if each.release == name} for name in evidence.releases}
    assert {name: len(found) for name, found in models.items()} == {"5.16.0": 990, "5.23.0": 1576, "5.24.0": 1606}
    assert {each.result.dtype for each in swept} == {"fp32", "fp16", "bf16", "int8"}
    assert {"onnxruntime:CPU", "webgpu"} <= {each.result.device for each in evidence.records}


def test_transformers_documentation_names_checkpoints() -> None:
    found = documented_checkpoints()
    assert "google-bert/bert-base-uncased" in found["bert"]
    assert "openai-community/gpt2" in found["gpt2"]


# The command.


def test_the_command_writes_a_page_and_its_data(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", str(reports), "--output", str(tmp_path / "site")]) == 0
    assert "4 classes, 10 results of 3 runs" in capsys.readouterr().out
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    data = json.loads((tmp_path / "site" / "support.json").read_text(encoding="utf-8"))
    assert data["models"]["a/AModel"]["cells"]["openvino:CPU fp32"]["problems"][0]["cause"] == "exporter"
    assert main(["site", str(reports), "--output", str(tmp_path / "site")]) == 0  # over its own earlier page


def test_the_command_replaces_nothing_else(reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", str(reports), "--output", str(reports)]) == 1
    assert "is a directory of reports" in capsys.readouterr().err
    (tmp_path / "index.html").write_text("<title>Mine</title>", encoding="utf-8")
    assert main(["site", str(reports), "--output", str(tmp_path)]) == 1
    assert "is another page" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html"]


# In a browser.


@pytest.fixture(scope="module")
def site_file(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub_ids = {"a": ["org/a-base"], "BModel": ["org/b-base"]}
    return write_site(tmp_path_factory.mktemp("site"), evidence, hub_ids)


@pytest.fixture(scope="module")
def site(browser: Any, site_file: Path) -> Iterator[Shown]:
    shown = Shown(browser, site_file)
    yield shown
    shown.context.close()


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (
            "AModel",
            BROKEN,
        ),
        ("bmodel", "BModel works in part on cpu fp32 (padding) with 5.10.0."),
        ("org/b-base", "BModel works in part on cpu fp32 (padding) with 5.10.0."),
        (
            "https://huggingface.co/org/a-large",
            BROKEN,
        ),
        ("DModel", "DModel is not tested on cpu fp32 (package) with 5.10.0."),
        (
            "Can I use AModel on openvino?",
            "AModel does not work on openvino:CPU fp32 (cannot be converted: exporter) with 5.10.0.",
        ),
        ("org/b-base cpu", "BModel works in part on cpu fp32 (padding) with 5.10.0."),
        (
            "BModel on onnxruntime at fp16",
            "No run has tested BModel on onnxruntime at fp16: there is no result. "
            "It works in part on cpu fp32 (padding) with 5.10.0.",
        ),
    ],
)
def test_a_class_or_a_hub_id_is_answered(site: Shown, query: str, answer: str) -> None:
    site.go("#matrix")
    site.filter(query)
    assert site.text(".site-answers p") == answer
    site.tab.wait_for_function(
        "query => new URLSearchParams(location.hash.split('?')[1]).get('q') === query", arg=query
    )


def test_a_question_filters_the_matrix_and_a_sentence_of_the_filter_stays_one(site: Shown) -> None:
    site.go("#matrix")
    assert "1 of 5 results, 1 of 4 classes" in site.filter("does AModel work on cpu?")
    assert "1 of 4 classes" in site.filter("works on cpu but fails on openvino")
    assert site.filter("AModel on the moon") == "0 of 5 results, 0 of 4 classes"


def test_a_hub_id_of_the_model_type_finds_its_classes(site: Shown) -> None:
    site.go("#matrix?q=org%2Fa-base")
    assert "1 of 4 classes" in site.text("#found")
    assert "AModel" in site.text('[data-line="0"] .name')


def test_an_unknown_hub_id_leads_on(site: Shown) -> None:
    site.go("#matrix?q=somebody%2Fmodel-x")
    assert "No result names somebody/model-x" in site.text(".nothing")
    assert site.tab.locator(".nothing a").first.get_attribute("href") == (
        "https://huggingface.co/somebody/model-x/blob/main/config.json"
    )


def test_a_class_shows_each_release(site: Shown) -> None:
    site.go("#matrix?open=class:AModel")
    assert site.tab.locator(".devices thead th").all_inner_texts() == ["Device", "5.10.0", "5.9.0"]
    row = site.tab.locator(".devices tbody tr", has_text="openvino:CPU").locator("td")
    assert [text.strip() for text in row.all_inner_texts()] == ["does not work", "works"]
    assert "cannot be converted" in site.text(".panel")
    assert "org/a-base" in site.text(".panel")


def test_a_result_shows_its_evidence(site: Shown) -> None:
    site.go("#matrix?open=AModel%2Fcpu%2Ffp32")
    panel = site.text(".panel")
    for text in (
        "org/a-large",
        "pretrained",
        "3 ms",
        "333 /s",
        "tolerance",
        "3 Jan 2026",
        "transformers 5.10.0",
        "Some CPU",
    ):
        assert text in panel
    assert "transformers 5.9.0" in panel
    assert "--hf-model org/a-large --hf-device cpu --hf-dtype fp32 --hf-weights pretrained" in panel


def test_one_release_can_be_looked_at(site: Shown) -> None:
    site.go("#matrix?release=5.9.0&q=AModel")
    assert site.text(".site-answers p") == "AModel works on cpu fp32, openvino:CPU fp32 with 5.9.0."
    site.go("#matrix?release=5.9.0&open=class:CModel")
    assert "There is no result with transformers 5.9.0" in site.text(".panel")


def test_what_changed_between_releases(site: Shown) -> None:
    site.go("#changes")
    text = site.text(".changes")
    assert "2 of 4 results" in text
    assert re.search(r"Worse\s+1 result", text)
    assert re.search(r"AModel\s*openvino:CPU fp32\s*works\s*→\s*does not work", text)
    assert re.search(r"BModel\s*cpu fp32\s*does not work\s*→\s*works in part", text)
    assert re.search(r"Only with 5.10.0\s+1 class\s+CModel", text)
    site.go("#changes?release=5.9.0")  # the oldest one: compared with the next
    assert re.search(r"AModel\s*openvino:CPU fp32\s*works\s*→\s*does not work", site.text(".changes"))


def test_what_is_broken_by_cause(site: Shown) -> None:
    site.go("#broken")
    heads = [text.split("\n")[0].split()[0] for text in site.tab.locator(".problems h2").all_inner_texts()]
    assert heads == ["transformers", "exporter", "package"]
    site.go("#broken?q=cause:exporter")
    assert site.tab.locator(".problem").count() == 1


def test_the_runs_are_listed(site: Shown) -> None:
    site.go("#runs")
    assert site.tab.locator(".sources tbody tr").count() == 3
    assert "pytest --all-models" in site.text(".sources")


def test_the_keyboard_suffices(site: Shown) -> None:
    site.go("#matrix")
    site.tab.get_by_label("Filter", exact=True).blur()  # the start page has put the cursor into its own
    site.tab.keyboard.press("/")
    site.tab.keyboard.type("AModel")
    site.tab.keyboard.press("Enter")
    site.tab.locator(".panel .devices").wait_for()
    site.tab.keyboard.press("Escape")
    site.tab.locator(".panel").wait_for(state="detached")
    assert site.tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Filter"
    site.tab.locator('[data-line="0"] [data-place="2"]').focus()
    site.tab.keyboard.press("Enter")
    site.tab.locator(".panel .evidence").first.wait_for()


def test_the_browser_complains_of_nothing_and_asks_for_nothing(site: Shown) -> None:
    assert not site.complaints
    assert all(url.startswith("file:") for url in site.requests)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("dark", {"color_scheme": "dark"}), ("phone", PHONE)])
def test_every_view_is_accessible_and_fits(
    browser: Any, site_file: Path, tmp_path: Path, name: str, options: Any
) -> None:
    shown = Shown(browser, site_file, **options)
    for view in (
        "matrix?q=AModel",
        "matrix?open=class:AModel",
        "matrix?open=BModel/cpu/fp32",
        "broken",
        "changes",
        "runs",
    ):
        shown.go(f"#{view}")
        shown.tab.wait_for_timeout(120)
        assert shown.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{view} is wider than the window"
        )
        picture = tmp_path / f"{name}-{re.sub(r'[^a-zA-Z]+', '-', view)}.png"
        shown.tab.screenshot(path=picture)
        assert not serious_findings(shown), view
    shown.context.close()


def test_nothing_in_the_data_runs(browser: Any, tmp_path: Path) -> None:
    failed = CheckOutcome("parity", Status.FAILED, Stage.RUN, HOSTILE)
    hostile = cell(HOSTILE, "cpu", failed, architecture=HOSTILE, task=HOSTILE)
    write_run(tmp_path, 1, HOSTILE, hostile, command=HOSTILE)
    page = tmp_path / "index.html"
    page.write_text(make_site_page(read_evidence([tmp_path]), {HOSTILE: [HOSTILE]}), encoding="utf-8")
    shown = Shown(browser, page)
    for view in ("matrix", "broken", "runs"):
        shown.go(f"#{view}")
        shown.tab.locator(".content", has_text="<img src=x").wait_for()
    shown.go("#matrix")
    shown.tab.locator(".cell").first.click()
    shown.tab.locator(".panel .evidence").wait_for()
    assert shown.tab.evaluate("window.hacked") is None
    shown.context.close()
