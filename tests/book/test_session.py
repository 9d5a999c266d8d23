import json
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import vpkit
from vpkit.book.session import check_parameters, choose_device, keep_freed_memory, notebook_parameters
from vpkit.training import History

DECLARED = 'dataset = "icons"  # a row\nepochs = 5\nseed = 0\ndevice = None\nresults_dir = ""\n'


def test_an_injected_name_must_be_declared():
    check_parameters(["", DECLARED, "# Parameters\nepochs = 2\n", "import vpkit"])
    check_parameters(["", DECLARED, "import vpkit", "x = 1"])
    with pytest.raises(ValueError, match=r"unknown notebook parameter epoch: this chapter has dataset, device, epochs"):
        check_parameters(["", DECLARED, "# Parameters\nepoch = 2\nseed = 1\n"])


def test_the_same_seed_draws_the_same(capsys):
    drawn = []
    for _ in range(2):
        vpkit.start(seed=3, device="cpu")
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert f"vpkit {vpkit.__version__} on the CPU" in capsys.readouterr().out


def test_the_device_is_checked():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device='gpu': expected 'cpu', 'cuda'"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="device='cuda:99': this machine has"):
        choose_device("cuda:99")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device='mps': this machine has no Apple GPU"):
            choose_device("mps")


@pytest.fixture
def notebook(monkeypatch):
    """A notebook that ran its parameters cell and one that papermill injected."""
    main = sys.modules["__main__"]
    cells = ["", DECLARED, "# Parameters\nseed = 4\nresults_dir = 'r'\n", "%pip install x"]
    values = {"dataset": "icons", "epochs": 5, "seed": 4, "device": None, "results_dir": "r", "In": cells}
    for name, value in values.items():
        monkeypatch.setattr(main, name, value, raising=False)


@pytest.mark.usefixtures("notebook")
def test_the_notebooks_parameters_are_read_from_its_cell():
    assert notebook_parameters() == {"dataset": "icons", "epochs": 5, "seed": 4}


@pytest.mark.usefixtures("notebook")
def test_a_result_table_becomes_one_run_a_row(tmp_path):
    table = pd.DataFrame({"method": ["FLM", "linear probe"], "test_accuracy": [0.25, 0.5], "n_test": [4, 4]})
    histories = {"FLM": History([{"epoch": 1, "val_accuracy": 0.1}], seconds=2.0)}
    assert vpkit.save_table("", table) == []
    paths = vpkit.save_table(tmp_path, table, histories)
    assert [path.name.rsplit("-", 1)[0] for path in paths] == ["icons-FLM", "icons-linear_probe"]
    runs = vpkit.book.load_runs(tmp_path).set_index("method")
    assert runs.loc["FLM", ["test_accuracy", "n_test", "seed", "seconds"]].tolist() == [0.25, 4, 4, 2.0]
    assert runs.loc["linear probe", "history"] == []


@pytest.mark.usefixtures("notebook")
def test_a_number_that_a_method_does_not_have_is_left_out(tmp_path):
    table = pd.DataFrame({"method": ["CoOp", "mine"], "test_accuracy": [0.5, 0.25], "new": [0.75, None]}, dtype=object)
    vpkit.save_table(tmp_path, table)
    kept = {path.name.split("-")[1]: json.loads(path.read_text())["metrics"] for path in tmp_path.iterdir()}
    assert kept == {"CoOp": {"test_accuracy": 0.5, "new": 0.75}, "mine": {"test_accuracy": 0.25}}
    with pytest.raises(ValueError, match="metrics are not finite: new"):
        vpkit.save_table(tmp_path, table.astype({"new": float}))


def test_a_string_where_a_list_belongs_is_refused():
    declared = 'methods = ["FLM", "ILM"]\nresults_dir = ""\n'
    check_parameters([declared, "# Parameters\nmethods = ['FLM']\n"])
    with pytest.raises(ValueError, match=r"methods=.*expected a list; papermill takes one as -y 'methods: "):
        check_parameters([declared, "# Parameters\nmethods = '[\"FLM\"]'\n"])


@pytest.mark.slow
def test_freed_memory_is_kept_for_the_next_batch():
    """In a process of its own: pages that are kept need not be found again, which the kernel counts as faults."""
    script = """
import resource, torch
from vpkit.book.session import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        torch.ones(10_000_000)  # 40 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
given_back = faults()
kept = keep_freed_memory()
faults()
print(kept, given_back, faults())
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    if shown[0] == "False":
        pytest.skip("no glibc here")
    assert int(shown[2]) < int(shown[1]) / 2  # a few blocks may still land where no page has been yet


def test_without_glibc_nothing_is_tried(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


def test_the_parameters_tell_where_states_are_kept_and_whether_to_download(tmp_path, monkeypatch):
    from vpkit.downloads import may_download

    monkeypatch.setenv("VPKIT_DOWNLOAD", "")
    monkeypatch.setenv("VPKIT_CHECKPOINTS", "")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "In", [""], raising=False)
    for name, value in {"download": True, "checkpoints": str(tmp_path), "results_dir": ""}.items():
        monkeypatch.setattr(main, name, value, raising=False)
    assert not may_download(None)
    vpkit.start(device="cpu", chapter="03_ilm_vp")
    assert may_download(None)
    assert not may_download(False)
    assert vpkit.training.checkpoint.checkpoint_file(None, "ILM") == tmp_path / "ILM.safetensors"


@pytest.mark.usefixtures("notebook")
def test_a_table_says_what_data_it_comes_from(tmp_path, image_set):
    table = pd.DataFrame({"method": ["a"], "accuracy": [0.5]})
    (path,) = vpkit.save_table(tmp_path, table, splits=[image_set])
    assert json.loads(path.read_text())["splits"] == [{"name": "colours", "split": "train", "n": 64, "rule": ""}]


def test_on_a_gpu_matrix_products_may_use_tf32(monkeypatch, capsys):
    monkeypatch.setattr(vpkit.book.session, "choose_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a pretend GPU")
    before = torch.get_float32_matmul_precision()
    try:
        assert vpkit.start(seed=0).type == "cuda"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert "a pretend GPU" in capsys.readouterr().out
