"""A person with a browser, in front of JupyterLab."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

# each a word that Debian, or others, call it by
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# nothing of it looks for a network, which there may not be; as root, it does not start in its own sandbox
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STARTS_MS = 60_000
RUNS_MS = 180_000
# what is drawn has no end that could be seen
DRAWN_MS = 1_000


@contextlib.contextmanager
def browser(pictures: Path) -> Iterator[Notebooks]:
    """A browser with an empty profile.

    :param pictures: folder for screenshots.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    assert program, f"expected a browser, one of {', '.join(PROGRAMS)}, on PATH; on Debian: apt-get install chromium"
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield Notebooks(started.new_page(viewport={"width": 1280, "height": 900}), pictures)
        finally:
            started.close()


class Notebooks:
    """JupyterLab's page, as a person uses it."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self.pictures = pictures

    def picture(self, name: str) -> None:
        """Keep what is to be seen."""
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def enter(self, url: str) -> None:
        """Open JupyterLab with an address that has the token in it."""
        self.page.goto(url)
        expect(self.page.locator(".jp-DirListing-content")).to_be_visible(timeout=STARTS_MS)

    def files(self) -> list[str]:
        """What the file browser shows."""
        return [each.strip() for each in self.page.locator(".jp-DirListing-itemName").all_inner_texts()]

    def open(self, name: str) -> None:
        """Open a file from the file browser, and wait for its kernel."""
        self.page.locator(".jp-DirListing-item", has_text=name).dblclick()
        expect(self.page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=STARTS_MS)
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("Idle", timeout=STARTS_MS)

    def run_all(self) -> None:
        """Run every cell from the menu, and wait until the last one has run."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        last = self.page.locator(".jp-Notebook .jp-CodeCell").last
        expect(last.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=RUNS_MS)

    def top(self) -> None:
        """Go to the notebook's beginning."""
        self.page.locator(".jp-Notebook .jp-WindowedPanel-outer").evaluate("panel => { panel.scrollTop = 0 }")
        expect(self.page.locator(".jp-Notebook h1")).to_be_visible()
        self.page.wait_for_timeout(DRAWN_MS)

    def see_plot(self, number: int) -> None:
        """Bring a picture of the notebook into view; what is out of sight is not in the page until one comes near."""
        panel = self.page.locator(".jp-Notebook .jp-WindowedPanel-outer")
        plot = self.page.locator(".jp-Notebook .jp-OutputArea-output img").nth(number)
        for _ in range(50):
            if plot.count():
                break
            panel.evaluate("panel => { panel.scrollTop += 300 }")
            self.page.wait_for_timeout(100)
        plot.scroll_into_view_if_needed()
        # what is around it moves until all of it is drawn
        self.page.wait_for_timeout(DRAWN_MS)
        plot.scroll_into_view_if_needed()
        expect(plot).to_be_in_viewport(ratio=1)

    def upload(self, path: Path) -> None:
        """Upload a file by the button of the file browser."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Upload Files").click()
        chooser.value.set_files(path)
        expect(self.page.locator(".jp-DirListing-item", has_text=path.name)).to_be_visible(timeout=STARTS_MS)

    def rename(self, old: str, new: str) -> None:
        """Rename a file in the file browser."""
        self.page.locator(".jp-DirListing-item", has_text=old).click()
        self.page.keyboard.press("F2")
        editor = self.page.locator(".jp-DirListing-editor")
        editor.fill(new)
        editor.press("Enter")
        expect(self.page.locator(".jp-DirListing-item", has_text=new)).to_be_visible(timeout=STARTS_MS)

    def download(self, name: str) -> Path:
        """Download a file by its menu; returns where it is here."""
        self.page.locator(".jp-DirListing-item", has_text=name).click(button="right")
        with self.page.expect_download() as download:
            self.page.get_by_role("menuitem", name="Download", exact=True).click()
        return Path(download.value.path())

    def saved(self, name: str) -> list[dict[str, Any]]:
        """Save the notebook, and return its code cells as the server has them then.

        What is out of sight is not in the page: JupyterLab leaves it out.
        """
        with self.page.expect_response(lambda answer: answer.request.method == "PUT" and name in answer.url):
            self.page.keyboard.press("Control+s")
        content = self.page.evaluate("name => fetch('/api/contents/' + name).then(answer => answer.json())", name)["content"]
        return [cell for cell in content["cells"] if cell["cell_type"] == "code"]
