"""Takes the pictures of the dashboard for docs/pictures.

All that they show was really run. One thing is made up: when. The programs of a minute are spread over a day in the database.
"""

from __future__ import annotations

import datetime as dt
import random
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.testing.served import KEY, Served  # noqa: E402 - found by the line above

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "docs" / "pictures"
EXECUTIONS, HOURS = 160, 23.5
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
CELL = """\
import numpy as np, pandas as pd
import matplotlib.pyplot as plt

rng = np.random.default_rng(7)
walk = pd.DataFrame(rng.normal(size=(200, 3)).cumsum(axis=0), columns=["a", "b", "c"])
walk.plot(figsize=(6.4, 2.2))
plt.show()
walk.describe().round(2).loc[["mean", "std", "min", "max"]]
"""


def main() -> None:
    """Run programs and take the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("pictures: there is no chromium on PATH")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder)) as served, sync_playwright() as playwright:
        fill(served)
        spread(Path(folder, "fumehood", "server", "server.db"))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = entered(browser, served, scheme, WIDE)
            page.screenshot(path=PICTURES / f"overview-{scheme}.png")
            page.goto(f"{served.url}/playground")
            play(page)
            page.screenshot(path=PICTURES / f"playground-{scheme}.png")
            page.get_by_role("button", name="End", exact=False).last.click()
            page.context.close()
        page = entered(browser, served, "light", PHONE)
        for name in ("executions", "playground"):
            page.goto(f"{served.url}/{name}")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=PICTURES / f"{name}-phone.png")
        browser.close()
    for path in sorted(PICTURES.glob("*.png")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size >> 10} KiB")


def entered(browser: Browser, served: Served, scheme: str, size: dict[str, int]) -> Page:
    """Return a page behind the log-in."""
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]  # "light" or "dark"
    page = context.new_page()
    page.goto(f"{served.url}/login")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{served.url}/")
    return page


def play(page: Page) -> None:
    """Use the playground."""
    page.get_by_label("Language").select_option("python-data")
    page.get_by_label("Upload").set_input_files(
        files=[{"name": "measured.csv", "mimeType": "text/csv", "buffer": b"t,v\n1,2\n" * 300}]  # type: ignore[arg-type]  # narrower than the call takes
    )
    page.get_by_role("button", name="Download measured.csv").wait_for()
    page.get_by_label("Code").fill(CELL)
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".cell:not(.running)").wait_for(timeout=60_000)
    page.frame_locator("iframe").locator("table").wait_for()
    page.locator("#code").evaluate("each => each.rows = 9")
    page.wait_for_timeout(500)


def fill(served: Served) -> None:
    """Have programs run, as a day would bring them."""
    draw = random.Random(11)  # noqa: S311 - for a picture
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as api:
        for number in range(EXECUTIONS):
            pause = draw.lognormvariate(-4.5, 1.3)
            code = f"import time; time.sleep({pause:.4f}); print({number} ** 2)"
            if draw.random() < 0.06:
                code += "; 1 / 0"
            language = draw.choices(["python", "bash", "javascript"], [8, 1, 1])[0]
            code = {"bash": "echo $((6 * 7))", "javascript": "console.log(6 * 7)"}.get(language, code)
            api.post("/v1/executions", json={"code": code, "language": language})
        api.post("/v1/executions", json={"code": "while True: pass", "limits": {"wall_seconds": 0.5}})


def spread(database: Path) -> None:
    """Give what ran times of a day, in the same order, with a night and a noon in it."""
    now = dt.datetime.now(dt.UTC)
    draw = random.Random(5)  # noqa: S311 - as above
    with sqlite3.connect(database) as connection:
        names = [row[0] for row in connection.execute("SELECT id FROM executions ORDER BY id")]
        weights = [1 + 3 * draw.random() + (4 if 5 < hour % 24 < 17 else 0) for hour in range(int(HOURS) + 1)]
        ago = sorted(
            (HOURS - hour - draw.random() * 0.9 for hour in draw.choices(range(len(weights)), weights, k=len(names))),
            reverse=True,
        )
        for name, hours in zip(names, ago, strict=True):
            at = (now - dt.timedelta(hours=max(0.0, hours))).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            connection.execute("UPDATE executions SET started_at = ? WHERE id = ?", (at, name))
    connection.close()


if __name__ == "__main__":
    main()
