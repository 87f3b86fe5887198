"""What the browser gets that we did not write is what vendor.toml says it is."""

import hashlib
import re
import tomllib
from pathlib import Path

VENDOR = Path(__file__).parents[3] / "controlplane" / "static" / "vendor"
STATIC = VENDOR.parent
TEMPLATES = Path(__file__).parents[3] / "templates"
PACKAGES = tomllib.loads((VENDOR / "vendor.toml").read_text(encoding="utf-8"))["package"]


def test_every_hash_is_right() -> None:
    for package in PACKAGES:
        for name, expected in package["sha256"].items():
            assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == expected, name


def test_no_file_is_unaccounted_for() -> None:
    known = {"vendor.toml"}
    known |= {package["licence_file"] for package in PACKAGES}
    known |= {name for package in PACKAGES for name in package["sha256"]}
    found = {str(p.relative_to(VENDOR)) for p in VENDOR.rglob("*") if p.is_file()}
    assert found == known


def test_every_package_says_what_it_is() -> None:
    fields = {"name", "version", "licence", "licence_file", "source", "sha256"}
    assert [package["name"] for package in PACKAGES if set(package) != fields] == []


def test_no_template_has_inline_script_or_style() -> None:
    inline = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:")
    guilty = [p.name for p in TEMPLATES.rglob("*.html") if inline.search(p.read_text("utf-8"))]
    assert guilty == []


def test_every_icon_in_use_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'id="i-([a-z0-9-]+)"', (VENDOR / "lucide/sprite.svg").read_text()))
    text = "".join(p.read_text("utf-8") for p in TEMPLATES.rglob("*.html"))
    used = set(re.findall(r'{% (?:icon|empty) "([a-z0-9-]+)"', text))
    assert used - sprite == set()


def test_nothing_is_fetched_from_elsewhere() -> None:
    ours = [*STATIC.glob("css/*.css"), *STATIC.glob("js/*.js"), *TEMPLATES.rglob("*.html")]
    address = re.compile(r"(?:url\(|src=|href=|import )[\"']?(?:https?:)?//")
    assert [path.name for path in ours if address.search(path.read_text("utf-8"))] == []
