"""scripts/train_cifar.py: learns, writes whole checkpoints, goes on where it was cut off, and refuses by name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from models.cifar_resnet import resnet
from scripts import train_cifar
from scripts.cifar_recipe import chosen_recipe, load_data
from tests.scripts.small_cifar import TINY, small_cifar

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_cifar.py"


def train(*arguments: object) -> Result:
    return CliRunner().invoke(train_cifar.main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cifar(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def uninterrupted(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of three epochs in one go."""
    output = tmp_path_factory.mktemp("run") / "resnet.ckpt"
    done = train("--data", batches, *TINY, "--epochs", 3, "-o", output)
    assert done.exit_code == 0, done.stderr
    assert "epoch 3/3" in done.stdout
    assert "test accuracy" in done.stdout
    return output


def test_the_checkpoint_is_a_state_dict_of_tensors_that_fits_the_network(uninterrupted: Path) -> None:
    state = torch.load(uninterrupted, weights_only=True)
    model = resnet("1,1,1")
    model.load_state_dict(state)
    assert int(model.bn.num_batches_tracked) == 3 * 5
    assert sorted(path.name for path in uninterrupted.parent.iterdir()) == ["resnet.ckpt", "resnet.ckpt.state"]


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(
    batches: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "resnet.ckpt"
    assert train("--data", batches, *TINY, "--epochs", 1, "-o", output).exit_code == 0
    done = train("--data", batches, *TINY, "--epochs", 3, "-o", output, "--resume")
    assert "epoch 1/3" not in done.stdout
    want, got = (torch.load(path, weights_only=True) for path in (uninterrupted, output))
    assert want.keys() == got.keys()
    assert [name for name in want if not torch.equal(want[name], got[name])] == []


def test_a_killed_run_leaves_a_whole_checkpoint_and_can_be_resumed(batches: Path, tmp_path: Path) -> None:
    output = tmp_path / "resnet.ckpt"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    run = subprocess.Popen([sys.executable, SCRIPT, "--data", batches, *TINY, "--epochs", "500", "-o", output], **quiet)
    try:
        give_up = time.monotonic() + 300
        while not output.exists() and run.poll() is None and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(1)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    resnet("1,1,1").load_state_dict(torch.load(output, weights_only=True))
    epoch = torch.load(f"{output}.state", weights_only=True)["epoch"]
    done = train("--data", batches, *TINY, "--epochs", epoch + 1, "-o", output, "--resume")
    assert done.exit_code == 0, done.stderr
    assert f"epoch {epoch + 1}/{epoch + 1}" in done.stdout


def test_a_resumed_run_with_another_recipe_is_refused_by_what_differs(batches: Path, uninterrupted: Path) -> None:
    done = train("--data", batches, "--blocks", "1,1,1", "--batch-size", 8, "-o", uninterrupted, "--resume")
    assert done.exit_code == 2
    assert "--batch-size 16, now 8" in done.stderr


def test_a_run_begins_with_given_weights_and_no_epoch_only_tests_them(
    batches: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "resnet.ckpt"
    begun = ("--data", batches, *TINY, "--weights", uninterrupted, "-o", output)
    done = train(*begun, "--epochs", 0)
    assert done.exit_code == 0, done.stderr
    recipe, _ = chosen_recipe(batches, blocks="1,1,1", batch_size=16, lr=1e-3, lr_step=None, seed=0)
    run = train_cifar.start(recipe, 10)
    run.model.load_state_dict(torch.load(uninterrupted, weights_only=True))
    assert f"({train_cifar.count_right(run, load_data(batches))} of 16 images)\n" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert train(*begun, "--epochs", 1).exit_code == 0
    assert int(torch.load(output, weights_only=True)["bn.num_batches_tracked"]) == 4 * 5
    other = train("--data", batches, "--weights", uninterrupted, "-o", tmp_path / "other.ckpt")
    assert other.exit_code == 2
    assert "layer1.1.conv1.weight" in other.stderr
    assert "give one of them" in train(*begun, "--resume").stderr


def test_an_existing_checkpoint_is_not_replaced_unasked(uninterrupted: Path) -> None:
    before = uninterrupted.read_bytes()
    done = train("-o", uninterrupted)
    assert done.exit_code == 2
    assert "--resume to go on with it or --force to replace it" in done.stderr
    assert uninterrupted.read_bytes() == before


def test_a_folder_without_batches_is_refused(tmp_path: Path) -> None:
    done = train("--data", tmp_path, "-o", tmp_path / "resnet.ckpt")
    assert done.exit_code == 2
    assert "no CIFAR-10 here, missing data_batch_1" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_broken_state_is_refused(batches: Path, tmp_path: Path) -> None:
    (tmp_path / "resnet.ckpt.state").write_bytes(b"not a state")
    done = train("--data", batches, *TINY, "-o", tmp_path / "resnet.ckpt", "--resume")
    assert done.exit_code == 2
    assert "resnet.ckpt.state is no state of a run" in done.stderr


def test_wrong_block_counts_are_refused(tmp_path: Path) -> None:
    done = train("--blocks", "2,2", "-o", tmp_path / "resnet.ckpt")
    assert done.exit_code == 2
    assert "want three positive block counts such as 2,2,2" in done.stderr


def test_help_shows_examples_without_loading_torch() -> None:
    code = f"import sys, runpy; sys.argv[1:] = ['--help']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    probe = f"import atexit, sys; atexit.register(lambda: print('torch loaded:', 'torch' in sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert "python scripts/train_cifar.py --resume" in done.stdout
    assert "torch loaded: False" in done.stdout
