"""Films the stepper for the README: ``python docs/film.py`` writes ``docs/stepper.webp``.

Needs chromium, playwright and Pillow. The film is in the repository, so it need not be made again.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import minigrad as mg

STEPS = (1, 2, 4, 8, 10, 11, 12, 15, 17, 20, 24, 26)
WIDTH, HEIGHT, SECONDS = 960, 640, 1.3


def stepper(path):
    """Batch norm of a batch of 4 with 3 channels, with a random cotangent."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(4, 3)), "gamma": rng.normal(size=3), "beta": np.zeros(3)}
    tensors = [mg.tensor(a, requires_grad=True, name=name) for name, a in arrays.items()]
    y = mg.batch_norm(*tensors)
    y.name = "y"
    return mg.viz.step(y, path, seed=rng.normal(size=(4, 3)))


def frames(page_path):
    """Screenshots of STEPS."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        for step in STEPS:
            page.goto("about:blank")
            page.goto(f"file://{page_path}#step={step}")
            page.wait_for_timeout(200)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            yield picture.quantize(40).convert("RGB")  # flat colours: 30 % smaller
        browser.close()


def main(target):
    """Write the film."""
    with tempfile.TemporaryDirectory() as folder:
        first, *rest = frames(stepper(Path(folder) / "bn.html"))
    options = {"duration": int(1000 * SECONDS), "loop": 0, "lossless": True, "method": 6}
    first.save(target, save_all=True, append_images=rest, **options)
    print(f"wrote {target}, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "stepper.webp"))
