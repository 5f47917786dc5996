"""What a user gets who installs hff without its checkout: commands, configurations and the bundled upstream."""

import subprocess
import sys
import time
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "-C", ROOT, "checkout-index", "-a", f"--prefix={source}/"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_every_package_is_listed(setup):
    folders = {f"hfftools.{'.'.join(p.parent.relative_to(ROOT / 'hfftools').parts)}".rstrip(".")
               for p in (ROOT / "hfftools").rglob("__init__.py")}  # fmt: skip
    assert set(setup["options"]["packages"].split()) == folders | {"hfftools.conf"}


def test_the_wheel_holds_configurations_and_the_bundled_upstream(wheel):
    names = set(wheel.namelist())
    for path in [*(ROOT / "conf").glob("*/*.yaml")]:
        assert f"hfftools/conf/{path.relative_to(ROOT / 'conf')}" in names
    weights = [n for n in names if n.startswith("hfftools/upstream/weights/") and n.endswith(".safetensors")]
    assert weights == ["hfftools/upstream/weights/hff_tiny.safetensors"]
    assert wheel.getinfo(weights[0]).file_size <= 16 * 2**20
    assert not [n for n in names if n.startswith("tests")]


def test_an_installed_hff_finds_its_configurations_from_any_folder(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    script = (
        "from hfftools.config import conf_file; import hfftools; print(hfftools.__file__, conf_file('method', 'hff'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(part.startswith(str(tmp_path / "site")) for part in done.stdout.split())


def test_every_command_helps_in_a_blink(setup):
    for line in setup["options.entry_points"]["console_scripts"].strip().splitlines():
        name, target = line.split(" = ")
        module = target.split(":")[0]
        command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
        start = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: {name}"), name
        assert not any(line.endswith((" torch", " s3prl", " transformers")) for line in done.stderr.splitlines()), name
        assert time.monotonic() - start < 5
