"""Runs in Chromium, over a language model that is being trained meanwhile: curves, log, note, samples, comparison."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from melete.jobs.execute import Options, execute
from melete.runs import folder
from melete.store import index
from melete.ui.pages import runs
from trial_runs import TRIAL, started_run
from ui.browser.conftest import AXE, PHONE, violations, watched
from web_at_hand import HOSTILE, Lab

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-work"), pytest.mark.slow]
LOSS = "melete-chart[keys=loss]"
PATIENCE_S = 60
TABS = [tab.lower() for tab in runs.TABS]
LINES = 150_000
"""Of the long log; more than 10 MB."""


@pytest.fixture(scope="module")
def training(lab: Lab) -> Iterator[str]:
    """A small language model that is trained all the while; the id of its run."""
    words = lab.settings.home.parent / "words"
    child = subprocess.Popen(
        [sys.executable, str(TRIAL), "llm", "pretrain", "--data", str(words), "--name", "in-training", "--depth", "1",
         "--width", "32", "--context", "32", "--batch-tokens", "256", "--steps", "1000000", "--vocab-size", "280",
         "--eval-tokens", "512", "--eval-every", "50", "--save-every", "0", "--dtype", "fp32"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "MELETE_HOME": str(lab.settings.home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield _grown(lab, child)
    finally:
        child.kill()
        child.wait()


def _grown(lab: Lab, child: subprocess.Popen[bytes]) -> str:
    """The run of a child once it has written figures."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and child.poll() is None:
        for run in lab.get("/runs?name=in-training")["data"]:
            if (lab.settings.runs / run["id"] / "metrics.jsonl").is_file():
                return str(run["id"])
        threading.Event().wait(0.2)
    raise AssertionError("the training did not begin")


def chart(page: Any, of: str, key: str = "loss") -> Any:
    """What a property of a chart is."""
    return page.evaluate(f"document.querySelector('melete-chart[keys={key}]').{of}")


def becomes(page: Any, of: str, key: str = "loss") -> None:
    """Waits until something holds of a chart."""
    page.wait_for_function(f"() => document.querySelector('melete-chart[keys={key}]').{of}")


def opened(page: Any, run: str, query: str = "") -> None:
    """Opens a run's curves and waits for the loss."""
    page.goto(f"/runs/{run}{query}")
    page.wait_for_selector(f"{LOSS} .u-over")


def test_curve_grows_while_one_looks(page: Any, training: str) -> None:
    opened(page, training)
    before = chart(page, "curves[0].values.length")
    page.wait_for_function(
        "(before) => document.querySelector('melete-chart[keys=loss]').curves[0].values.length > before + 20",
        arg=before,
    )
    drawn = chart(page, "plot.data[0].length")
    assert drawn > before
    later = page.locator("melete-chart[keys=val_bpb]")  # a figure that comes later gets a chart of its own
    later.scroll_into_view_if_needed()
    later.locator(".u-over").wait_for()
    expect(page.locator("#run-head")).to_contain_text("running")


def test_zoom_asks_for_the_finer_range_and_the_address_shows_it(page: Any, training: str) -> None:
    opened(page, training, "?points=100")
    page.wait_for_function(
        "() => document.querySelector('melete-chart[keys=loss]').curves[0].steps.at(-1) > 150"
    )
    page.reload()
    page.wait_for_selector(f"{LOSS} .u-over")
    box = page.locator(f"{LOSS} .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 50, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "() => document.querySelector('melete-chart[keys=loss]').detail?.[0].values.length > 2"
    )
    page.wait_for_url("**from=*")
    low, high = chart(page, "plot.scales.x.min"), chart(page, "plot.scales.x.max")
    steps = chart(page, "detail[0].steps")
    inside = [step for step in steps if low <= step <= high]
    assert 0 < high - low < chart(page, "curves[0].steps.at(-1)") / 2
    assert len(inside) >= (high - low) - 2 or len(steps) >= 50
    becomes(page, f"plot.scales.x.min === {low}", "rate")
    page.locator(f"{LOSS} .u-over").dblclick()
    page.wait_for_function("() => !location.search.includes('from=')")
    becomes(page, "plot.scales.x.min === 0")


def test_view_is_kept_in_the_address_and_remembered(page: Any, training: str) -> None:
    opened(page, training)
    page.get_by_label("Smoothing").fill("0.9")
    page.get_by_label("Log axis").check()
    page.locator("[name=x]").select_option("relative")
    page.wait_for_url("**smooth=0.9&y=log&x=relative*")
    # x, the faint values, their average
    becomes(page, "plot.series.filter((one) => one.show).length === 3")
    becomes(page, "plot.scales.y.distr === 3")
    becomes(page, "plot.scales.x.max < 10_000")  # seconds, not steps since 1970
    page.goto(f"/runs/{training}")
    page.wait_for_selector(f"{LOSS} .u-over")
    expect(page.get_by_label("Smoothing")).to_have_value("0.9")


def test_average_is_the_exponential_one(page: Any, lab: Lab) -> None:
    opened(page, lab.made["first"], "?smooth=0.5")
    values, smooth = chart(page, "curves[0].values"), chart(page, "plot.data[2]")
    total, weight = 0.0, 0.0
    for value, shown in zip(values, smooth, strict=True):
        total, weight = 0.5 * total + 0.5 * value, 0.5 * weight + 0.5
        assert shown == pytest.approx(total / weight)


def test_other_run_is_laid_over_with_a_dash_and_its_name(page: Any, lab: Lab, training: str) -> None:
    opened(page, training)
    page.get_by_text("Other runs over these").click()
    page.get_by_label("tiny-base").check()
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**with=*")
    page.wait_for_function(
        "() => document.querySelector('melete-chart[keys=loss]')?.columns?.curves.length === 2"
    )
    legend = page.locator(f"{LOSS} .legend button")
    expect(legend).to_have_count(2)
    assert [
        line.get_attribute("stroke-dasharray") for line in page.locator(f"{LOSS} .legend line").all()
    ] == ["", "7 4"]
    expect(legend.nth(1)).to_contain_text("tiny-base")
    legend.nth(1).click()
    expect(legend.nth(1)).to_have_attribute("aria-pressed", "false")


def test_keyboard_reads_values_and_zooms(page: Any, lab: Lab) -> None:
    opened(page, lab.made["first"])
    page.focus(f"{LOSS} .plot")
    page.keyboard.press("Home")
    spoken = page.locator(f"{LOSS} [data-part=spoken]")
    expect(spoken).to_have_text("step 1: loss " + spoken.inner_text().rpartition(" ")[2])
    page.keyboard.press("ArrowRight")
    expect(spoken).to_contain_text("step 2: loss")
    expect(page.locator("melete-chart[keys=tokens_per_s] [data-part=at]")).to_have_text("")
    page.keyboard.press("+")
    page.wait_for_url("**to=*")
    page.keyboard.press("0")
    page.wait_for_function("() => !location.search.includes('to=')")
    expect(page.locator(f"{LOSS} [data-part=said]")).to_contain_text("step 1 to 40")


def test_cursor_is_shared_by_charts(page: Any, lab: Lab) -> None:
    opened(page, lab.made["first"])
    page.wait_for_selector("melete-chart[keys=tokens_per_s] .u-over")
    page.hover(f"{LOSS} .u-over")
    expect(page.locator(f"{LOSS} [data-part=at]")).to_contain_text("step")
    at = page.locator(f"{LOSS} [data-part=at]").inner_text()
    expect(page.locator("melete-chart[keys=tokens_per_s] [data-part=at]")).to_have_text(at)


def test_figures_are_filtered_hidden_and_pinned(page: Any, lab: Lab) -> None:
    opened(page, lab.made["pretrain"])
    page.get_by_label("Filter").fill("^(loss|mfu)$")
    expect(page.locator("melete-chart")).to_have_count(2)
    page.hover("melete-chart[keys=mfu]")
    page.locator("melete-chart[keys=mfu]").get_by_role("button", name="Pin").click()
    expect(page.locator("curve-board h2").first).to_have_text("Pinned")
    page.hover(LOSS)
    page.locator(LOSS).get_by_role("button", name="Hide").click()
    expect(page.locator("melete-chart")).to_have_count(1)
    page.get_by_role("button", name="Show hidden").click()
    expect(page.locator("melete-chart")).to_have_count(2)


def test_values_are_downloaded_as_csv(page: Any, lab: Lab) -> None:
    opened(page, lab.made["first"])
    page.hover(LOSS)
    with page.expect_download() as found:
        page.locator(LOSS).get_by_role("button", name="CSV").click()
    lines = Path(found.value.path()).read_text().splitlines()
    assert lines[0] == "run,figure,step,time_s,value"
    assert len(lines) == 41
    with page.expect_download() as found:
        page.locator(LOSS).get_by_role("button", name="PNG").click()
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")


def test_values_that_are_not_finite_are_counted(page: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 5}, Options(lab.settings, name="lost-values")).id
    with (lab.settings.runs / run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "time_s": 1.0, "loss": NaN}\n{"step": 7, "time_s": 2.0, "loss": 0.1}\n')
    opened(page, run)
    expect(page.locator(f"{LOSS} [data-part=notes]")).to_have_text("1 value is not finite")
    becomes(page, "plot.data[1].includes(null)")  # the line is broken there


def test_charts_out_of_sight_are_not_drawn(page: Any, lab: Lab) -> None:
    page.set_viewport_size({"width": 800, "height": 600})
    opened(page, lab.made["pretrain"])
    assert page.evaluate("[...document.querySelectorAll('melete-chart')].at(-1).plot") is None
    page.locator("melete-chart").last.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('melete-chart')].at(-1).plot !== null")
    page.wait_for_function("() => document.querySelector('melete-chart').plot === null")


def test_log_follows_and_search_leads_to_a_line(page: Any, lab: Lab) -> None:
    with started_run(
        lab.settings, "--steps", "100000", "--hold-s", "0.05", "--loud", "--name", "talking"
    ) as (
        child,
        path,
    ):
        threading.Thread(target=lambda: child.stdout and child.stdout.read(), daemon=True).start()
        page.goto(f"/runs/{path.name}?tab=log")
        rows = page.locator(".log-rows .line")
        page.wait_for_function(
            "() => { const box = document.querySelector('.log-box');"
            " return box.scrollTop > 0 && box.scrollTop + box.clientHeight >= box.scrollHeight - 2; }"
        )
        page.get_by_label("Search in the log").fill("step 7")
        expect(page.locator("log-view [data-part=note]")).to_contain_text("with “step 7”")
        rows.filter(has_text="step 7").first.click()
        expect(page.locator(".line.marked")).to_contain_text("step 7")
        page.wait_for_url("**search=step+7**")
        page.get_by_role("button", name="Follow").click()
        expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "true")


def test_log_of_ten_megabytes_holds_few_lines_in_the_page(page: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 1}, Options(lab.settings, name="long-log")).id
    with (lab.settings.runs / run / "log.txt").open("w") as file:
        for number in range(LINES):
            file.write(
                f"12:00:00 line {number:06d} of a long log, with \x1b[31mred\x1b[0m words in it, and more\n"
            )
        file.write("12:00:01 10 %\r12:00:01 50 %\r12:00:01 100 %\n" + HOSTILE + "\n")
    page.goto(f"/runs/{run}?tab=log")
    expect(page.locator(".line").filter(has_text="100 %")).to_have_text("12:00:01 100 %")
    expect(page.locator(".line .ansi-1").first).to_have_text("red")
    expect(page.locator(".line").last).to_have_text(HOSTILE)
    began_s = time.monotonic()
    for _ in range(12):
        page.locator(".log-box").evaluate("(box) => { box.scrollTop = 0; }")
        page.wait_for_function("() => document.querySelector('.log-box').scrollTop > 400")
    assert page.locator(".line").count() < 200
    assert page.evaluate("document.querySelector('log-view').lines.length") > 2_000
    assert time.monotonic() - began_s < PATIENCE_S
    page.get_by_label("Search in the log").fill("line 000007")
    page.locator(".line").filter(has_text="line 000007").click()
    expect(page.locator(".line.marked")).to_contain_text("line 000007")


def test_note_saves_itself_and_is_there_after_a_reload(page: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 1}, Options(lab.settings, name="noted")).id
    page.goto(f"/runs/{run}")
    page.get_by_text("Note", exact=True).click()
    page.get_by_label("Note, in Markdown").fill("It **works**")
    expect(page.locator("note-field [data-part=state]")).to_have_text("Saved")
    page.reload()
    expect(page.get_by_label("Note, in Markdown")).to_have_value("It **works**")
    expect(page.locator("note-field mark-down strong")).to_have_text("works")


def test_note_that_was_changed_elsewhere_is_not_overwritten(browser: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 1}, Options(lab.settings, name="noted-twice")).id
    with watched(browser, lab.url, allowed=("status of 412",)) as page:
        page.goto(f"/runs/{run}")
        page.get_by_text("Note", exact=True).click()
        page.request.put(f"/api/v1/runs/{run}/note", data={"text": "theirs"}, headers={"Origin": lab.url})
        page.get_by_label("Note, in Markdown").fill("mine")
        expect(page.get_by_text("Nothing was overwritten.")).to_be_visible()
        assert (lab.settings.runs / run / "note.md").read_text() == "theirs"
        page.get_by_role("button", name="Keep mine").click()
        expect(page.locator("note-field [data-part=state]")).to_have_text("Saved")
    assert (lab.settings.runs / run / "note.md").read_text() == "mine"


def test_stop_saves_and_ends_a_run(page: Any, busy_lab: tuple[Lab, str]) -> None:
    lab, run = busy_lab
    page.goto(f"/runs/{run}")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#run-head .state-stopped")).to_be_visible()
    assert folder.read(lab.settings.runs / run).state == "stopped"
    expect(page.locator("#run-head")).to_contain_text(f"melete runs resume {run}")


def test_list_shows_a_run_that_begins_and_keeps_what_is_chosen(page: Any, lab: Lab) -> None:
    page.goto("/runs")
    page.wait_for_selector("html[data-conn=live]")
    boxes = [page.locator(f"[data-pick='{lab.made[name]}']") for name in ("first", "second")]
    for box in boxes:
        box.focus()
        page.keyboard.press("Space")
    execute("trial.count", {"steps": 1}, Options(lab.settings, name="just-begun"))
    page.get_by_role("link", name="just-begun").first.wait_for()
    for box in boxes:
        expect(box).to_be_checked()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?runs=*")
    expect(page.locator(".compared li")).to_have_count(2)


def test_compare_draws_all_runs_in_one_chart(page: Any, lab: Lab, training: str) -> None:
    page.goto(f"/compare?runs={lab.made['pretrain']},{training}#curves")
    page.locator(LOSS).scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('melete-chart[keys=loss]')?.columns?.curves.length === 2"
    )
    before = chart(page, "curves[1].values.length")
    page.wait_for_function(
        "(before) => document.querySelector('melete-chart[keys=loss]').curves[1].values.length > before",
        arg=before,
    )
    becomes(page, "plot.data.every((one, _, all) => one.length === all[0].length)")
    steps = chart(page, "plot.data[0]")
    assert steps == sorted(set(steps))


def test_slider_shows_the_text_of_another_step(page: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 2}, Options(lab.settings, name="two-texts")).id
    (lab.settings.runs / run / "samples" / "00000001_text.txt").write_text("before")
    page.goto(f"/runs/{run}?tab=samples")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("pre.sample")).to_have_text("before")
    page.wait_for_url("**at=0*")
    page.reload()
    expect(page.locator("pre.sample")).to_have_text("before")


def test_images_open_large_and_are_led_through_by_keyboard(page: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 1}, Options(lab.settings, name="pictures")).id
    kept = lab.settings.runs / run / "samples"
    for step in (1, 2, 3):
        (kept / f"{step:08d}_cat.png").write_bytes(picture(step * 80))
        (kept / f"{step:08d}_cat.txt").write_text(HOSTILE if step == 3 else f"cat {step}")
    page.goto(f"/runs/{run}?tab=samples")
    expect(page.locator(".images figure")).to_have_count(3)
    expect(page.locator(".images figcaption").first).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Show cat of step 3 large").click()
    viewer = page.get_by_role("dialog")
    expect(viewer).to_contain_text("1 of 3")
    page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text("2 of 3 · step 2 cat")
    page.wait_for_function("document.querySelector('.viewer img').naturalWidth == 8")
    page.keyboard.press("Escape")
    expect(viewer).not_to_be_visible()
    expect(page.get_by_role("button", name="Show cat of step 2 large")).to_be_focused()


def picture(level: int) -> bytes:
    """A grey PNG of 8 by 8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([level]) * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "path", ["/runs", "/compare?runs=RUN,FIRST", "/runs/RUN?tab=log", "/runs/RUN", "/runs/RUN?tab=samples"]
)
def test_hostile_texts_run_no_script(page: Any, lab: Lab, path: str) -> None:
    page.goto(path.replace("RUN", lab.made["hostile"]).replace("FIRST", lab.made["first"]))
    page.wait_for_selector("html[data-conn=live]")
    page.get_by_text("<img src=x").first.wait_for()
    assert page.title() not in ("run", "ran")


def test_run_whose_folder_is_deleted_meanwhile_says_so_once(browser: Any, lab: Lab) -> None:
    run = execute("trial.count", {"steps": 3}, Options(lab.settings, name="deleted")).id
    with watched(browser, lab.url, allowed=("status of 404",)) as page:
        opened(page, run)
        shutil.rmtree(lab.settings.runs / run)
        message = page.get_by_text("is gone: it was deleted or moved away")
        message.wait_for()
        expect(message).to_have_count(1)
        assert chart(page, "curves[0].values.length") == 3  # what was known stays to be seen
    index.rebuild(lab.settings)  # other tests follow all links of the lab


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tabs_and_comparison_have_no_serious_violation(browser: Any, lab: Lab, scheme: str) -> None:
    run, found = lab.made["pretrain"], []
    paths = [f"/compare?runs={run},{lab.made['second']}", *(f"/runs/{run}?tab={tab}" for tab in TABS)]
    with watched(browser, lab.url, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce") as page:
        for path in paths:
            page.goto(path)
            page.wait_for_selector("html[data-conn=live]")
            found += [f"{path} {line}" for line in violations(page)]
    assert found == []


@pytest.mark.parametrize(
    "path", ["/runs", "/compare?runs=RUN,OTHER", *(f"/runs/RUN?tab={tab}" for tab in TABS)]
)
def test_pages_fit_a_phone(browser: Any, lab: Lab, path: str) -> None:
    with watched(browser, lab.url, viewport=PHONE) as page:
        page.goto(path.replace("RUN", lab.made["pretrain"]).replace("OTHER", lab.made["second"]))
        page.wait_for_selector("html[data-conn=live]")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
