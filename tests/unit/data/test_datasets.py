"""The data sets: the same each time, in the form both frameworks want, and read without running a file's code."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translator.data.batches import augment, epoch_batches
from translator.data.cifar import TEST_FILE, TRAIN_FILES, load_cifar10
from translator.data.dataset import channel_statistics
from translator.data.digits import enlarge, load_digits_32
from translator.errors import InputError


def python_2_pickle(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as the published files hold it: protocol 2, byte strings as keys, numpy's old module names."""
    batch = {b"batch_label": b"training batch 1 of 5", b"labels": labels, b"data": data, b"filenames": [b"a.png"]}
    return pickle.dumps(batch, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_batches(folder: Path, rng: np.random.Generator, size: int = 4) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in (*TRAIN_FILES, TEST_FILE):
        written[name] = rng.integers(0, 256, (size, 3072), dtype=np.uint8)
        (folder / name).write_bytes(python_2_pickle(written[name], [int(n) for n in rng.integers(0, 10, size)]))
    return written


def test_digits_are_1437_and_360_images_the_same_each_time() -> None:
    data, again = load_digits_32(), load_digits_32()
    assert (data.train_x.shape, data.test_x.shape) == ((1437, 32, 32, 3), (360, 32, 32, 3))
    assert (data.train_x.dtype, data.train_y.dtype) == (np.uint8, np.int64)
    assert np.array_equal(data.train_x, again.train_x)
    assert np.array_equal(data.test_y, again.test_y)
    assert np.bincount(data.test_y).min() >= 34
    assert not data.mirrors


def test_digits_for_testing_are_not_trained_on() -> None:
    data = load_digits_32()
    seen = {image.tobytes() for image in data.train_x}
    assert sum(image.tobytes() in seen for image in data.test_x) == 0


def test_enlarging_keeps_flat_areas_and_ends_of_the_scale() -> None:
    flat = np.full((1, 8, 8), 16.0)
    assert np.all(enlarge(flat, 32) == 255)
    step = np.zeros((1, 8, 8))
    step[:, :, 4:] = 16
    row = enlarge(step, 32)[0, 0, :, 0]
    assert row[:14].max() == 0
    assert row[18:].min() == 255
    assert np.all(np.diff(row.astype(int)) >= 0)


def test_statistics_equal_those_of_the_scaled_images(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-13)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_cifar_batches_are_read_as_height_width_channels(tmp_path: Path, rng: np.random.Generator, inside: str) -> None:
    written = write_batches(tmp_path / inside, rng)
    data = load_cifar10(tmp_path)
    assert (data.train_x.shape, data.test_x.shape) == ((20, 32, 32, 3), (4, 32, 32, 3))
    assert data.train_x[1, 2, 3, 1] == written["data_batch_1"][1, 1024 + 2 * 32 + 3]
    assert data.test_x[3, 31, 0, 2] == written["test_batch"][3, 2 * 1024 + 31 * 32]
    assert (data.train_y.shape, data.train_y.dtype, len(data.classes)) == ((20,), np.int64, 10)
    assert data.mirrors


class Evil:
    """Writes a file when it is unpickled by somebody careless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_batch_that_needs_code_is_refused_and_its_code_is_not_run(tmp_path: Path, rng: np.random.Generator) -> None:
    write_batches(tmp_path, rng)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(tmp_path / "ran")}))
    with pytest.raises(InputError, match=r"data_batch_3.*and only arrays are let in"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_the_batches_is_refused_with_their_names(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"missing data_batch_1, .*test_batch\n  fix:"):
        load_cifar10(tmp_path)
    write_batches(tmp_path, rng)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(InputError, match=r"missing data_batch_4\n"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 50, 500, 12_000])
def test_a_truncated_batch_is_refused(tmp_path: Path, rng: np.random.Generator, keep: int) -> None:
    write_batches(tmp_path, rng)
    path = tmp_path / TEST_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="test_batch: not a whole CIFAR-10 batch"):
        load_cifar10(tmp_path)


@settings(max_examples=500)
@given(data=st.data())
def test_a_damaged_batch_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(python_2_pickle(np.zeros((2, 3072), np.uint8), [1, 2]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 200) | st.integers(len(whole) - 200, len(whole) - 1))] = data.draw(
            st.integers(0, 255)
        )
    folder = tmp_path_factory.mktemp("damaged")
    for name in (*TRAIN_FILES, TEST_FILE):
        (folder / name).write_bytes(whole)
    with suppress(InputError):
        load_cifar10(folder)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ([1, 2], "a list instead of a dictionary"),
        ({b"labels": [1]}, "want data of shape"),
        ({b"data": np.zeros((1, 3072)), b"labels": [1]}, "want data of shape"),
        ({b"data": np.zeros((1, 100), np.uint8), b"labels": [1]}, "want data of shape"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "want 2 labels from 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "want 1 labels from 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [1]}, "want 1 labels from 0 to 9"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, rng: np.random.Generator, batch: object, says: str) -> None:
    write_batches(tmp_path, rng)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(InputError, match=f"data_batch_2: not a CIFAR-10 batch: .*{says}"):
        load_cifar10(tmp_path)


def test_each_image_of_an_epoch_comes_once_and_the_order_follows_from_seed_and_epoch() -> None:
    data = load_digits_32()

    def labels(**settings: int) -> list[int]:
        return [int(y) for _, part in epoch_batches(data, batch_size=100, **settings) for y in part]

    first = labels(seed=1, epoch=2)
    assert sorted(first) == sorted(data.train_y.tolist())
    assert first == labels(seed=1, epoch=2)
    assert first != labels(seed=1, epoch=3)
    assert first != labels(seed=2, epoch=2)
    assert [len(x) for x, _ in epoch_batches(data, batch_size=100, seed=0, epoch=0)] == [100] * 14 + [37]


@given(seed=st.integers(0, 2**32), pad=st.integers(0, 4), mirror=st.booleans())
def test_an_augmented_image_is_a_window_of_the_padded_or_mirrored_one(seed: int, pad: int, mirror: bool) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (3, 6, 5, 2), dtype=np.uint8)
    got = augment(images, rng, pad=pad, mirror=mirror)
    assert (got.shape, got.dtype) == (images.shape, images.dtype)
    for image, cut in zip(images, got, strict=True):
        wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        sources = [wide, wide[:, ::-1]] if mirror else [wide]
        places = [(s, r, c) for s in sources for r in range(2 * pad + 1) for c in range(2 * pad + 1)]
        assert any(np.array_equal(s[r : r + 6, c : c + 5], cut) for s, r, c in places)


def test_half_of_the_images_are_mirrored_and_none_where_that_changes_the_class(rng: np.random.Generator) -> None:
    images = np.tile(np.arange(8, dtype=np.uint8)[None, None, :, None], (1000, 8, 1, 1))
    mirrored = (np.diff(augment(images, rng, pad=0).astype(int), axis=2) < 0).all(axis=(1, 2, 3)).sum()
    assert 430 < mirrored < 570
    assert np.array_equal(augment(images, rng, pad=0, mirror=False), images)
