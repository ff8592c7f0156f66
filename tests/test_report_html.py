import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report import report

FLAGS = """--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update
    --disable-sync --no-first-run --hide-scrollbars --enable-logging=stderr"""
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND"  # what the browser itself looks for is not found either
LIGHT, DARK = "preferredColorScheme=1", "preferredColorScheme=0"

Open = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def browser(tmp_path: Path) -> Open:
    """Opens a page in chromium with further flags."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium here to open a report with; Debian has it as the package chromium")
    profile = f"--user-data-dir={tmp_path / 'profile'}"

    def opened(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [found, *FLAGS.split(), NOWHERE, profile, *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    return opened


@pytest.fixture
def page(measured_run: Path) -> Path:
    return Path(report([measured_run])["written"][0])


def test_browser_shows_the_page_and_asks_for_nothing(browser: Open, page: Path, tmp_path: Path) -> None:
    log = tmp_path / "network.json"
    done = browser(page, "--dump-dom", f"--log-net-log={log}")
    assert re.search(r'<b class="badge">PASSED</b>', done.stdout)
    assert done.stdout.count("<svg") == page.read_text().count("<svg") > 5
    assert "CONSOLE" not in done.stderr
    assert log.stat().st_size > 0
    # Google's addresses are the browser's own business: updates, the time, accounts.
    asked = {*re.findall(r'"url":"(\w+:[^"]{0,60})', log.read_text())}
    assert not [url for url in asked if url.startswith(("http", "ws")) and "google" not in url], asked


@pytest.mark.parametrize(("scheme", "dark"), [(LIGHT, False), (DARK, True)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [500, 1280])
def test_page_is_light_or_dark_and_not_blank(
    browser: Open, page: Path, tmp_path: Path, scheme: str, dark: bool, width: int
) -> None:
    shot = tmp_path / "shot.png"
    browser(page, f"--blink-settings={scheme}", f"--window-size={width},1600", f"--screenshot={shot}")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), np.float64)
    assert pixels.shape == (1600, width)
    assert (np.median(pixels) < 64) == dark
    assert (np.abs(pixels - np.median(pixels)) > 64).mean() > 0.01
