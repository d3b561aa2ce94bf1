"""Builds the documentation site: `docs/`, the pages made from the code, and the notebooks with their outputs.

python scripts/docs/build.py [--output build/docs] [--serve]

The pages are put together in `OUTPUT/pages`, and Zensical builds `OUTPUT/site` from them. Broken links, unknown
references and public names without documentation fail the build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llms
import notebook_pages
import reference
import yaml

ROOT = Path(__file__).parent.parent.parent
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def assemble(output: Path) -> Path:
    """Write every page and the configuration, and return the configuration's path.

    Args:
        output: Folder to write to; its `pages` are replaced.

    Raises:
        SystemExit: If a public name lacks documentation.
    """
    pages = output / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for name, text in reference.make_pages().items():
        _write(pages / "reference" / name, text)
    models = pages / "models.md"
    _write(models, models.read_text(encoding="utf-8").replace("<!-- model table -->", reference.model_table()))
    notebook_pages.convert_all(ROOT / "notebooks", pages / "tutorials")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    config["docs_dir"], config["site_dir"] = "pages", "site"
    config["nav"] = [_expand(entry, pages) for entry in config["nav"]]
    config["plugins"] = [_with_paths(plugin) for plugin in config["plugins"]]
    target = output / "mkdocs.yml"
    _write(target, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return target


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _expand(entry: dict[str, str], pages: Path) -> dict[str, Any]:
    """Replace a folder in the navigation by its pages: `index.md` first, the others by `order` and name."""
    ((title, target),) = entry.items()
    if target.endswith(".md"):
        return entry
    found = sorted(pages.joinpath(target).glob("*.md"), key=_place)
    return {title: [page.relative_to(pages).as_posix() for page in found]}


def _place(page: Path) -> tuple[bool, int, str]:
    text = page.read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    return page.name != "index.md", head.get("order", 99), page.name


def _with_paths(plugin: Any) -> Any:
    if isinstance(plugin, dict) and "mkdocstrings" in plugin:
        plugin["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    return plugin


def zensical(command: str, config: Path, *options: str) -> None:
    """Run Zensical on a configuration; its exit code becomes this program's if it fails."""
    arguments = [sys.executable, "-m", "zensical", command, "--config-file", config.name, *options]
    with subprocess.Popen(
        arguments, cwd=config.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            # It colours its messages letter by letter, also in a pipe.
            print(_COLOURS.sub("", line), end="", flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)


def main() -> None:
    """Build or serve the site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--serve", action="store_true", help="serve the site on localhost:8000 instead")
    options = parser.parse_args()
    config = assemble(options.output.resolve())
    if options.serve:
        zensical("serve", config)
        return
    site = config.parent / "site"
    shutil.rmtree(site, ignore_errors=True)
    zensical("build", config, "--clean", "--strict")
    reference.check_inventory(site / "objects.inv")
    llms.write(config, site)
    print(f"Wrote {site / 'index.html'}")


if __name__ == "__main__":
    main()
