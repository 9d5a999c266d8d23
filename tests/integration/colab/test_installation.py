"""The source archive and the wheel made from it: all of the package is in them, and it works where it is installed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
USE = """
import vpkit
clip = vpkit.load_clip("tiny")
images = vpkit.load_dataset("icons", "val", size=96, subset=66)
zero_shot = clip.zero_shot([f"a photo of a {name}." for name in images.class_names])
classifier = vpkit.PromptedClassifier(vpkit.prompts.PadPrompt(96, 4), zero_shot, vpkit.mappings.identity_mapping(66))
assert vpkit.evaluate(classifier, images.batches(66)).n == 66
assert len(vpkit.load_study("01_visual_prompting")) and len(vpkit.load_paper_results())
print(vpkit.__file__)
"""


def test_archive_and_wheel_hold_the_package_and_work(remote, bare, tmp_path):
    command = [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", remote]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    listed = subprocess.run(["git", "ls-files", "vpkit"], cwd=remote, capture_output=True, text=True, check=True)
    package = set(listed.stdout.split())
    assert len(package) > 60
    assert package <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert package | {"pyproject.toml", "README.md", "LICENSE"} <= inside

    subprocess.run([bare, "-m", "pip", "install", "-q", wheel], cwd=tmp_path, check=True, capture_output=True)
    used = subprocess.run([bare, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr[-2000:]
    assert str(bare.parents[1]) in used.stdout
    said = subprocess.run([bare.with_name("vpkit"), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "predict" in said.stdout
