import gzip
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crosslayer.core.dataset import Dataset, Split
from crosslayer.core.errors import DataError, ToolError
from crosslayer.datasets import (
    catalog,
    cifar,
    digits,
    download,
    idx,
    image_folder,
    labels,
    npz,
    parts,
    places,
    speech,
    table,
)
from datasets_samples import (
    idx_bytes,
    random_bytes,
    rows,
    write_archive,
    write_batches,
    write_idx_set,
    write_images,
    write_npz,
    write_sheets,
    write_text,
)
from datasets_server import Server, serving

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def shared(name: str) -> Path:
    """The folder of a real data set beside the repository; skips the test where it is absent."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not beside the repository (in ../shared/data/{name})")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the data sets of the person who runs it."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.delenv(places.VARIABLE, raising=False)
    monkeypatch.setattr(places, "cache_folder", lambda: folder)
    return folder


def same(one: Split, other: Split) -> bool:
    return bool((one.codes == other.codes).all() and (one.labels == other.labels).all())


def check_carving(data: Dataset, whole: Split, *, own_test: bool) -> None:
    """`data` splits the samples of `whole` by position: again the same ones, each into one split."""
    rest = positions = Split(codes=np.arange(len(whole)), labels=whole.labels)
    carved: dict[str, Split] = {}
    if not own_test:
        rest, carved["test"] = parts.stratified(rest, parts.TEST_SHARE, parts.SEED)
    carved["train"], carved["validation"] = parts.stratified(rest, parts.VALIDATION_SHARE, parts.SEED)
    assert sorted(np.concatenate([split.codes for split in carved.values()])) == positions.codes.tolist()
    assert all(same(getattr(data, role), whole.take(split.codes)) for role, split in carved.items())


@given(
    numbers=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 99),
)
def test_a_stratified_part_takes_its_share_of_each_class_and_loses_nothing(
    numbers: list[int], share: float, seed: int
) -> None:
    split = Split(codes=np.arange(len(numbers)), labels=np.array(numbers, dtype=np.int64))
    kept, taken = parts.stratified(split, share, seed)
    assert sorted([*kept.codes, *taken.codes]) == list(range(len(numbers)))
    assert all((part.labels == split.labels[part.codes]).all() for part in (kept, taken))
    assert set(kept.labels.tolist()) == set(numbers)
    counts = np.bincount(split.labels, minlength=7)
    pool = int(counts[counts > 1].sum())
    fraction = len(taken) / max(1, pool)
    assert abs(len(taken) - pool * share) <= 1
    for number, count in enumerate(counts.tolist()):
        assert abs((taken.labels == number).sum() - (count * fraction if count > 1 else 0)) < 1
    assert same(taken, parts.stratified(split, share, seed)[1])


def test_an_own_split_is_kept_and_a_missing_one_is_carved_from_training() -> None:
    def split(start: int, count: int) -> Split:
        return Split(codes=np.arange(start, start + count)[:, np.newaxis], labels=np.arange(count) % 2)

    whole, own = split(0, 100), split(500, 10)
    carved = parts.assemble(parts.Parts(train=whole, classes=("a", "b")), name="n", source="s", where="w")
    assert [len(s) for s in (carved.train, carved.validation, carved.test)] == [72, 8, 20]
    kept = parts.assemble(parts.Parts(train=whole, test=own, classes=("a", "b")), name="n", source="s", where="w")
    assert same(kept.test, own)
    assert [len(kept.train), len(kept.validation)] == [90, 10]
    both = parts.Parts(train=whole, test=own, validation=split(600, 5), classes=("a", "b"), note="noted")
    assert same(parts.assemble(both, name="n", source="s", where="w").train, whole)
    assert parts.assemble(both, name="n", source="s", where="w").source == "s (noted)"


def test_a_carved_split_never_changes_between_versions() -> None:
    split = Split(codes=np.arange(50), labels=np.arange(50) % 5)
    assert parts.stratified(split, 0.2, parts.SEED)[1].codes.tolist() == [1, 5, 6, 7, 8, 14, 22, 28, 29, 30]


def test_splits_of_different_form_are_refused() -> None:
    small, large = (Split(codes=np.zeros((4, n)), labels=np.zeros(4, dtype=np.int64)) for n in (2, 3))
    with pytest.raises(DataError, match=r"test samples are 3 float64.* training samples are 2 float64"):
        parts.assemble(parts.Parts(train=small, test=large, classes=("a",)), name="n", source="s", where="w")


@pytest.mark.parametrize("numbers", [[], [0], [0, 0], [0, 1, 2]])
def test_too_few_samples_for_three_splits_are_refused(numbers: list[int]) -> None:
    split = Split(codes=np.zeros((len(numbers), 2)), labels=np.array(numbers, dtype=np.int64))
    with pytest.raises(DataError, match="too few"):
        parts.assemble(parts.Parts(train=split, classes=("a", "b", "c")), name="n", source="s", where="w")


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_read_as_images_with_a_channel_axis(tmp_path: Path, packed: bool) -> None:
    found = idx.read(write_idx_set(tmp_path, packed=packed), tuple("0123456789"))
    assert found.test is not None
    assert (found.train.codes == random_bytes(60, 5, 4, seed=1)[..., np.newaxis]).all()
    assert (found.test.codes == random_bytes(30, 5, 4, seed=2)[..., np.newaxis]).all()
    assert found.train.labels.tolist() == [k % 10 for k in range(60)]
    assert found.train.codes.dtype == np.uint8
    assert found.train.real()[0].max() == pytest.approx(found.train.codes[0].max() / 255)


def test_an_unpacked_idx_file_that_kept_its_gz_name_is_read(tmp_path: Path) -> None:
    write_idx_set(tmp_path, packed=False)
    for path in tuple(tmp_path.iterdir()):
        path.rename(path.with_name(f"{path.name}.gz"))
    assert len(idx.read(tmp_path, tuple("0123456789")).train) == 60


def test_all_binary_forms_of_cifar_give_the_same_images_channels_last(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / cifar.ARCHIVE)
    from_archive = cifar.read_archive(archive, records=20)
    from_batches = cifar.read_batches(tmp_path / "unpacked", records=20)
    assert from_archive.test is not None
    assert from_batches.test is not None
    assert same(from_archive.train, from_batches.train)
    assert same(from_archive.test, from_batches.test)
    third = random_bytes(20, 3073, seed=2)[5]
    assert (from_batches.train.codes[45, :, :, 1].ravel() == third[1 + 1024 : 1 + 2048]).all()
    assert from_batches.train.codes.shape == (100, 32, 32, 3)


def test_cifar_sheets_are_cut_row_by_row(tmp_path: Path) -> None:
    found = cifar.read(write_sheets(tmp_path / "cifar10"))
    assert found.test is not None
    assert (found.test.codes[777] == (777 % 256, 777 // 256, 7)).all()
    assert found.train.codes.shape == (1000, 32, 32, 3)
    assert found.note == ""
    write_text(tmp_path / "cifar10" / cifar.LOSSY, '{"train": [1, 2], "test": [3]}')
    assert cifar.read(tmp_path / "cifar10").note == "3 images come from a JPEG copy, see lossy_indices.json"


def test_the_published_bytes_of_cifar_are_preferred_to_sheets(tmp_path: Path) -> None:
    write_sheets(tmp_path)
    write_batches(tmp_path / cifar.BATCH_FOLDER, records=1)
    with pytest.raises(DataError, match=r"data_batch_1\.bin has 3073 bytes instead of 30730000"):
        cifar.read(tmp_path)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("1", 1), ("P", 3), ("RGBA", 3), ("LA", 1)])
def test_image_folders_read_as_pixels_of_one_or_three_channels(tmp_path: Path, mode: str, channels: int) -> None:
    found = image_folder.read(write_images(tmp_path, mode=mode))
    assert found.train.codes.shape == (16, 6, 4, channels)
    assert found.classes == ("cat", "dog")
    assert found.train.labels.tolist() == [0] * 8 + [1] * 8
    if mode == "RGB":
        assert (found.train.codes[9] == random_bytes(6, 4, 3, seed=101)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "webp", "gif", "tiff", "ppm"])
def test_image_folders_hold_any_common_format(tmp_path: Path, suffix: str) -> None:
    data = catalog.load(str(write_images(tmp_path / "pets", suffix=suffix)))
    assert (data.name, data.shape) == ("pets", (6, 4, 3))
    assert len(data.train) + len(data.validation) + len(data.test) == 16


def test_one_coloured_image_makes_all_of_a_folder_three_channels(tmp_path: Path) -> None:
    write_images(tmp_path, classes=("cat",), mode="L")
    write_images(tmp_path, classes=("dog",), mode="RGB")
    assert image_folder.read(tmp_path).train.codes.shape == (16, 6, 4, 3)


def test_an_image_folder_may_bring_its_splits(tmp_path: Path) -> None:
    for role, each in (("train", 4), ("val", 2), ("test", 3)):
        write_images(tmp_path / role, classes=("9", "10"), each=each)
    (tmp_path / ".hidden").mkdir()
    data = catalog.load(str(tmp_path))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [8, 4, 6]
    assert data.classes == ("9", "10")


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    assert image_folder.read(write_images(tmp_path, classes=("plane", "train"))).classes == ("plane", "train")


NPZ_X = {
    "gray images": (random_bytes(20, 5, 4), (20, 5, 4, 1), np.uint8, 1 / 255),
    "colour images": (random_bytes(20, 5, 4, 3), (20, 5, 4, 3), np.uint8, 1 / 255),
    "float64 features": (np.linspace(-1, 1, 60).reshape(20, 3), (20, 3), np.float32, 1.0),
    "float32 signals": (np.ones((20, 6, 2), np.float32), (20, 6, 2), np.float32, 1.0),
    "int16 signals": (np.arange(-40, 40, dtype=np.int16).reshape(20, 4), (20, 4), np.float32, 1.0),
    "flags": (np.ones((20, 4), np.bool_), (20, 4), np.float32, 1.0),
}


@pytest.mark.parametrize("case", NPZ_X)
def test_npz_samples_keep_their_values(tmp_path: Path, case: str) -> None:
    samples, shape, dtype, scale = NPZ_X[case]
    found = npz.read(write_npz(tmp_path / "a.npz", x=samples, y=np.arange(20) % 2))
    assert (found.train.codes.shape, found.train.codes.dtype, found.train.scale) == (shape, dtype, scale)
    assert np.allclose(found.train.real(), samples.reshape(shape).astype(np.float32) * np.float32(scale))


NPZ_Y = {
    "numbers": (np.array([3, 7, 3, 7]), {}, ("3", "7"), [0, 1, 0, 1]),
    "a column": (np.array([[1], [0], [1], [0]]), {}, ("0", "1"), [1, 0, 1, 0]),
    "flags": (np.array([True, False, True, False]), {}, ("0", "1"), [1, 0, 1, 0]),
    "text": (np.array(["b", "a", "b", "a"]), {}, ("a", "b"), [1, 0, 1, 0]),
    "named numbers": (np.array([2, 0, 2, 0]), {"classes": np.array(["x", "y", "z"])}, ("x", "y", "z"), [2, 0, 2, 0]),
}


@pytest.mark.parametrize("case", NPZ_Y)
def test_npz_labels_index_the_classes(tmp_path: Path, case: str) -> None:
    y, more, classes, expected = NPZ_Y[case]
    found = npz.read(write_npz(tmp_path / "a.npz", x=np.zeros((4, 2)), y=y, **more))
    assert (found.classes, found.train.labels.tolist()) == (classes, expected)


@pytest.mark.parametrize("roles", [("train",), ("train", "test"), ("train", "test", "val")])
def test_npz_splits_are_kept(tmp_path: Path, roles: tuple[str, ...]) -> None:
    arrays: dict[str, Any] = {}
    for role, count in zip(roles, (40, 10, 6), strict=False):
        arrays |= {f"x_{role}": np.zeros((count, 3)), f"y_{role}": np.arange(count) % 2}
    data = catalog.load(str(write_npz(tmp_path / "mine.npz", **arrays, meta=np.array("any"))))
    assert data.name == "mine"
    sizes = [len(s) for s in (data.train, data.validation, data.test)]
    assert sizes == [[29, 3, 8], [36, 4, 10], [40, 6, 10]][len(roles) - 1]


CSV_TEXT = {
    "no header": rows(""),
    "header with label last": rows("width,height,label\n"),
    "header of other names": rows("width,height,kind\n"),
    "header of numbers": rows("0,1,label\n"),
    "blank lines, spaces and quotes": rows("width, height, Class \n\n") + '\n5,"2.5", odd \n',
    "byte order mark": "\ufeff" + rows("width,height,class\n"),
    "semicolons": rows("width,height,class\n").replace(",", ";"),
    "tabs": rows("").replace(",", "\t"),
    "label first": "label,a,b\n" + "".join(f"{'odd' if k % 2 else 'even'},{k},{k / 4}\n" for k in range(20)),
}


@pytest.mark.parametrize("case", CSV_TEXT)
def test_tables_read_alike_whatever_their_dialect(tmp_path: Path, case: str) -> None:
    found = table.read(write_text(tmp_path / "a.csv", CSV_TEXT[case]))
    assert found.classes == ("even", "odd")
    assert found.train.codes.dtype == np.float32
    assert found.train.codes[5].tolist() == [5.0, 1.25]
    assert found.train.labels[:4].tolist() == [0, 1, 0, 1]


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
            st.sampled_from(["cat", "10", "a,b", 'say "x"', "ü"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_written_table_reads_back_the_same(samples: list[tuple[list[float], str]]) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    with tempfile.TemporaryDirectory() as folder:
        text = "".join(f"{','.join(map(repr, values))},{quoted(name)}\n" for values, name in samples)
        found = table.read(write_text(Path(folder) / "a.csv", text))
    assert found.train.codes.tolist() == [values for values, _ in samples]
    assert [found.classes[k] for k in found.train.labels] == [name for _, name in samples]


def test_digits_are_sixteenths(tmp_path: Path) -> None:
    data = catalog.load("digits")
    assert (data.name, data.shape, data.classes) == ("digits", (8, 8, 1), tuple("0123456789"))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [1294, 144, 359]
    assert data.train.codes.dtype == np.uint8
    assert (data.train.codes.min(), data.train.codes.max(), data.train.real().max()) == (0, 16, 1.0)
    check_carving(data, digits.read().train, own_test=False)


def test_digits_without_scikit_learn_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ToolError, match=r"pip install 'crosslayer\[train\]'"):
        catalog.load("digits")


def broken_idx(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write_idx_set(folder, packed=False)
        (folder / name).write_bytes(content)
        return folder

    return build


def broken_sheets(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (write_sheets(folder) / name).write_bytes(content)
        return folder

    return build


def sheets_with_labels(train: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write_npz(write_sheets(folder) / cifar.LABELS, train=train, test=np.zeros(1000, np.uint8))
        return folder

    return build


def npz_of(**arrays: Any) -> Callable[[Path], Path]:
    return lambda folder: write_npz(folder / "a.npz", **arrays)


def csv_of(text: str, encoding: str = "utf-8") -> Callable[[Path], Path]:
    return lambda folder: write_text(folder / "a.csv", text, encoding)


def file_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return build


def broken_images(path: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (write_images(folder) / path).write_bytes(content)
        return folder

    return build


def image_bytes(mode: str = "RGB", size: tuple[int, int] = (4, 6), form: str = "PNG", *, noise: bool = False) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(random_bytes(size[1], size[0], 3)) if noise else Image.new(mode, size)
    image.save(stream, format=form)
    return stream.getvalue()


def tree(*folders: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        for name in folders:
            write_images(folder / name, each=2)
        return folder

    return build


def wrongly_grouped(folder: Path) -> Path:
    write_images(folder / "train", classes=("cat",))
    write_images(folder / "test", classes=("dog",))
    return folder


IMAGES, LABELS = idx.TRAIN
TWO = {"y": np.arange(20) % 2}
DAMAGE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "idx: wrong magic": (broken_idx(IMAGES, b"\0\0\x08\x01" + bytes(12)), f"{IMAGES}: is no idx file .* 3 axes"),
    "idx: floats": (broken_idx(IMAGES, b"\0\0\x0d\x03" + bytes(12)), r"unsigned bytes .*starts 00000d03"),
    "idx: empty": (broken_idx(IMAGES, b""), "is no idx file"),
    "idx: ends in its header": (broken_idx(IMAGES, b"\0\0\x08\x03\0\0"), f"{IMAGES}: cannot be decoded"),
    "idx: truncated": (broken_idx(LABELS, idx_bytes(random_bytes(60))[:-1]), f"{LABELS}: ends too early.* 60 bytes"),
    "idx: trailing bytes": (broken_idx(LABELS, idx_bytes(random_bytes(60)) + b"x"), f"{LABELS}: goes on too long"),
    "idx: promises 2^96 bytes": (broken_idx(IMAGES, b"\0\0\x08\x03" + b"\xff" * 12), f"{IMAGES}: ends too early"),
    "idx: fewer labels": (broken_idx(LABELS, idx_bytes(random_bytes(59, below=9))), "60 images, but .* 59 labels"),
    "idx: label 10": (broken_idx(LABELS, idx_bytes(np.full(60, 10, np.uint8))), f"{LABELS}: holds label 10"),
    "idx: truncated gzip": (
        broken_idx(LABELS, gzip.compress(idx_bytes(random_bytes(60)))[:-20]),
        f"{LABELS}: cannot be decoded",
    ),
    "idx: gzip with a wrong checksum": (
        broken_idx(LABELS, gzip.compress(idx_bytes(np.zeros(60, np.uint8)))[:-8] + bytes(8)),
        f"{LABELS}: cannot be decoded .*CRC",
    ),
    "idx: gzip with damaged stream": (broken_idx(LABELS, gzip.compress(b"")[:10] + b"\xff" * 30), "cannot be decoded"),
    "idx: other size in test": (
        broken_idx(idx.TEST[0], idx_bytes(random_bytes(30, 4, 4))),
        "test samples are 4×4×1 .* training samples are 5×4×1",
    ),
    "webp: no image": (broken_sheets("test_00.webp", b"RIFF"), r"test_00\.webp: cannot be decoded"),
    "webp: truncated": (broken_sheets("test_00.webp", image_bytes(size=(1280, 800), form="WEBP")[:99]), "test_00"),
    "webp: wrong size": (broken_sheets("test_00.webp", image_bytes(form="WEBP")), r"test_00\.webp: is RGB of \(4, 6\)"),
    "webp: a PNG": (broken_sheets("test_00.webp", image_bytes()), r"test_00\.webp: cannot be decoded"),
    "sheets: one absent": (sheets_with_labels(np.zeros(2000, np.uint8)), r"train_01\.webp: cannot be read"),
    "sheets: 999 labels": (sheets_with_labels(np.zeros(999, np.uint8)), r"labels\.npz: train should be a multiple of"),
    "sheets: label 10": (sheets_with_labels(np.full(1000, 10, np.uint8)), r"labels\.npz: holds label 10"),
    "sheets: labels are objects": (sheets_with_labels(np.array([None] * 1000)), r"labels\.npz: cannot be decoded"),
    "sheets: no list of lossy": (broken_sheets(cifar.LOSSY, b"[]"), r"lossy_indices\.json: cannot be decoded"),
    "images: no image": (broken_images("cat/003.png", b"text"), r"003\.png: cannot be decoded"),
    "images: truncated": (broken_images("cat/003.png", image_bytes(noise=True)[:90]), r"003\.png: cannot be decoded"),
    "images: other size": (broken_images("cat/003.png", image_bytes(size=(5, 6))), r"003\.png: is 5×6 .* is 4×6"),
    "images: 16 bits": (broken_images("cat/003.png", image_bytes("I;16")), r"003\.png: has more than 8 bits"),
    "images: a program for a printer": (broken_images("cat/003.png", image_bytes(form="EPS")), r"003\.png: cannot be"),
    "images: empty folder": (lambda folder: folder, "no data set that is known here"),
    "images: empty class": (tree("cat"), r"cat: no image .* in this class folder"),
    "images: strange folder": (tree("train", "spare"), "spare: is not a split"),
    "images: two validations": (tree("train", "val", "valid"), "valid: is a second validation split"),
    "images: class only in test": (wrongly_grouped, "test has classes that train lacks: dog"),
    "npz: not one": (file_of("a.npz", b"text"), r"a\.npz: is not an \.npz archive"),
    "npz: one array": (file_of("a.npz", b"\x93NUMPY\x01\x00"), r"a\.npz: is not an \.npz archive"),
    "npz: objects": (npz_of(x=np.array([{}] * 20), **TWO), "array x cannot be read .* never unpickled"),
    "npz: object labels": (npz_of(x=np.zeros((20, 2)), y=np.array([None] * 20)), "array y cannot be read"),
    "npz: nothing": (npz_of(), "lacks x_train, y_train .it holds nothing"),
    "npz: no labels": (npz_of(x=np.zeros((20, 2))), r"lacks y .it holds x\)"),
    "npz: half a split": (npz_of(x_train=np.zeros((20, 2)), y_train=TWO["y"], y_test=TWO["y"]), "lacks x_test"),
    "npz: too few labels": (npz_of(x=np.zeros((21, 2)), **TWO), "21 samples and 20 labels"),
    "npz: samples are scalars": (npz_of(x=np.zeros(20), **TWO), r"x is float64 of shape \(20,\)"),
    "npz: samples are text": (npz_of(x=np.full((20, 2), "a"), **TWO), "x is <U1"),
    "npz: samples are complex": (npz_of(x=np.zeros((20, 2), np.complex64), **TWO), "x is complex64"),
    "npz: not a number": (npz_of(x=np.full((20, 2), np.nan), **TWO), "not finite"),
    "npz: beyond float32": (npz_of(x=np.full((20, 2), 1e39), **TWO), "not finite"),
    "npz: labels are fractions": (npz_of(x=np.zeros((20, 2)), y=np.full(20, 0.5)), "y is float64"),
    "npz: labels are one-hot": (npz_of(x=np.zeros((20, 2)), y=np.zeros((20, 2), np.uint8)), r"shape \(20, 2\)"),
    "npz: label is no class": (npz_of(x=np.zeros((20, 2)), y=np.full(20, 2), classes=np.array(["a", "b"])), "label 2"),
    "npz: label is negative": (npz_of(x=np.zeros((20, 2)), y=np.full(20, -1), classes=np.array(["a"])), "label -1"),
    "npz: classes are numbers": (npz_of(x=np.zeros((20, 2)), classes=np.arange(2), **TWO), "classes should be text"),
    "npz: no sample": (npz_of(x=np.zeros((0, 2)), y=np.zeros(0, np.int64)), "too few"),
    "csv: empty": (csv_of(""), "too few"),
    "csv: header alone": (csv_of("a,b,label\n"), "too few"),
    "csv: one column": (csv_of("label\ncat\n"), "has one column"),
    "csv: short line": (csv_of(rows("a,b,label\n") + "1,2\n"), "line 22: 2 cells instead of 3"),
    "csv: text in a number": (csv_of(rows("a,b,label\n") + "1,x,odd\n"), "line 22: 'x' is not a number"),
    "csv: empty cell": (csv_of(rows("a,b,label\n") + "1,,odd\n"), "line 22: '' is not a number"),
    "csv: nan": (csv_of(rows("") + "1,nan,odd\n"), "line 21: holds a value that is not a finite"),
    "csv: beyond float32": (csv_of(rows("") + "1,1e39,odd\n"), "line 21: holds a value"),
    "csv: no label": (csv_of(rows("") + "1,2, \n"), "line 21: no label"),
    "csv: another encoding": (csv_of(rows("") + "1,2,Käfer\n", "latin-1"), r"a\.csv: cannot be decoded"),
    "csv: open quote": (csv_of(rows("") + '1,2,"odd\n'), r"a\.csv: cannot be decoded"),
    "csv: a label a sample": (csv_of("".join(f"{k},{k},{k}\n" for k in range(9))), "too few"),
    "file: unknown kind": (file_of("a.pkl", b""), r"a\.pkl: a file of this kind is not read; give \.npz, \.csv"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_data_error_that_names_its_place(tmp_path: Path, case: str) -> None:
    build, message = DAMAGE[case]
    with pytest.raises(DataError, match=message):
        catalog.load(str(build(tmp_path)))


CIFAR_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "batch: truncated": (
        lambda folder: (write_batches(folder) / "data_batch_3.bin").write_bytes(bytes(19 * 3073)),
        r"data_batch_3\.bin: data_batch_3\.bin has 58387 bytes instead of 61460",
    ),
    "batch: absent": (lambda f: (write_batches(f) / "data_batch_3.bin").unlink(), r"data_batch_3\.bin: cannot be read"),
    "batch: label 255": (
        lambda f: (write_batches(f) / "test_batch.bin").write_bytes(b"\xff" * 61460),
        "holds label 255",
    ),
    "archive: empty": (lambda f: (f / cifar.ARCHIVE).write_bytes(b""), f"{cifar.ARCHIVE}: "),
    "archive: not gzip": (lambda f: (f / cifar.ARCHIVE).write_bytes(b"text" * 300), "cannot be decoded"),
    "archive: lacks a batch": (
        lambda f: write_archive(f / cifar.ARCHIVE, leave_out="data_batch_2.bin"),
        r"lacks data_batch_2\.bin",
    ),
    "archive: short batch": (lambda f: write_archive(f / cifar.ARCHIVE, records=19), "has 58387 bytes instead"),
    "archive: truncated": (
        lambda f: os.truncate(write_archive(f / cifar.ARCHIVE), 100_000),
        f"{cifar.ARCHIVE}: cannot be decoded",
    ),
}


@pytest.mark.parametrize("case", CIFAR_DAMAGE)
def test_damage_of_binary_cifar_is_one_data_error(tmp_path: Path, case: str) -> None:
    build, message = CIFAR_DAMAGE[case]
    build(tmp_path)
    in_batches = case.startswith("batch")
    with pytest.raises(DataError, match=message):
        cifar.read_batches(tmp_path, 20) if in_batches else cifar.read_archive(tmp_path / cifar.ARCHIVE, 20)


def test_a_folder_without_cifar_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needed: cifar-10-binary\.tar\.gz, or cifar-10-batches-bin/"):
        cifar.read(tmp_path)


def smallest(kind: str, folder: Path) -> Path:
    """A valid file or folder of each kind, and so a base for damage."""
    match kind:
        case "idx":
            return write_idx_set(folder, packed=False) / IMAGES
        case "gz":
            return write_idx_set(folder) / f"{LABELS}.gz"
        case "npz":
            return write_npz(folder / "a.npz", x=random_bytes(20, 2, 2), y=np.arange(20) % 2)
        case "csv":
            return write_text(folder / "a.csv", rows("a,b,label\n"))
        case _:
            return write_images(folder, suffix=kind) / "cat" / f"000.{kind}"


@pytest.mark.parametrize("kind", ["idx", "gz", "npz", "csv", "png", "jpg", "webp", "tiff", "gif", "bmp", "ppm"])
def test_no_damage_ends_in_anything_but_a_data_error(tmp_path: Path, kind: str) -> None:
    path = smallest(kind, tmp_path)
    source = str(path if kind in ("npz", "csv") else tmp_path)
    intact = path.read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(intact) - 1), st.binary(min_size=1, max_size=8), st.booleans())
    def damage(place: int, content: bytes, cut: bool) -> None:
        path.write_bytes(intact[:place] + (b"" if cut else content + intact[place + len(content) :]))
        try:
            loaded = catalog.load(source)
        except DataError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert len(loaded.train)

    damage()


def test_a_pickle_in_an_npz_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.exit, ("the pickle ran",))

    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(DataError, match="never unpickled"):
        catalog.load(str(tmp_path / "a.npz"))


def test_the_catalogue_lists_each_set_once_with_licence_and_citation() -> None:
    names = [source.name for source in catalog.catalog()]
    assert names == ["digits", "mnist", "fashion-mnist", "cifar10", "kws12"]
    assert all(source.title and source.licence and source.citation for source in catalog.catalog())


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist", "Fashion_MNIST", " fashion-mnist "])
def test_names_ignore_case_and_underscores(name: str) -> None:
    assert catalog.find(name).name == "fashion-mnist"


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(DataError, match=r"'mnits' \(did you mean mnist\?\); known: digits, mnist"):
        catalog.find("mnits")
    with pytest.raises(DataError, match=r"neither .* nor a file or folder \(did you mean cifar10\?\)"):
        catalog.load("cifar-10")


@pytest.mark.parametrize("source", ["", "no/such.npz", "a\0b", "x" * 5000, "~no-such-person/a.csv"])
def test_a_source_that_cannot_be_a_path_is_a_data_error(source: str) -> None:
    with pytest.raises(DataError):
        catalog.load(source)


def test_an_absent_set_says_where_it_was_looked_for_and_how_to_get_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    (write_idx_set(tmp_path / "mnist") / f"{LABELS}.gz").unlink()
    assert catalog.locate("mnist") is None
    assert catalog.whereabouts("mnist") == "not here; `crosslayer datasets get mnist` fetches it"
    with pytest.raises(DataError) as caught:
        catalog.load("mnist")
    assert str(caught.value) == (
        f"mnist: not found. Looked in {tmp_path}/mnist (lacks {LABELS}[.gz]); {cache}/mnist (no such folder); "
        "`crosslayer datasets get mnist` fetches it"
    )


@pytest.mark.parametrize("folder", ["fashion_mnist", "fashion-mnist"])
def test_a_set_is_found_under_the_named_folder_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    write_idx_set(cache / folder)
    assert catalog.locate("fashion-mnist") == cache / folder
    write_idx_set(tmp_path / folder, count=90)
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    assert catalog.whereabouts("fashion-mnist") == str(tmp_path / folder)
    data = catalog.load("fashion-mnist")
    assert (data.name, data.classes[9]) == ("fashion-mnist", "Ankle boot")
    assert len(data.train) + len(data.validation) == 90


def test_an_unreadable_search_folder_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, "x" * 5000)
    with pytest.raises(DataError, match="File name too long"):
        catalog.locate("mnist")


def test_damage_of_a_known_set_names_the_command_that_replaces_it(cache: Path) -> None:
    (write_idx_set(cache / "mnist") / f"{IMAGES}.gz").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz: is no idx .*remove this one; `crosslayer datasets get"):
        catalog.load("mnist")


def test_a_folder_of_a_known_set_is_that_set(tmp_path: Path) -> None:
    assert catalog.load(str(write_idx_set(tmp_path / "fashion_mnist"))).name == "fashion-mnist"
    other = catalog.load(str(write_idx_set(tmp_path / "letters")))
    assert (other.name, other.classes[3], other.source) == ("letters", "3", str(tmp_path / "letters"))


def test_bundled_sets_have_no_folder() -> None:
    assert catalog.locate("digits") is None
    assert catalog.whereabouts("digits") == "comes with scikit-learn"


def test_the_real_cache_folder_belongs_to_crosslayer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert places.cache_folder().parts[-1] == "datasets"
    assert "crosslayer" in places.cache_folder().parts


def test_importing_the_room_loads_numpy_alone() -> None:
    code = (
        "import sys, crosslayer.datasets.catalog, crosslayer.datasets.download\n"
        "print(*sorted({'PIL', 'sklearn', 'platformdirs', 'torch', 'scipy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ""


def test_class_numbers_reject_what_is_no_class() -> None:
    with pytest.raises(DataError, match="holds label 3, but the 2 classes are numbered 0…1"):
        labels.indices(np.array([0, 3]), ("a", "b"), Path("f"))


# --- downloads -------------------------------------------------------------------------------------------------------

FILES = {"one.gz": random_bytes(900_000).tobytes(), "two.gz": b"second file"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of FILES, which stand for the files of every known set."""
    with serving(dict(FILES)) as told:
        published = tuple(
            download.Download(
                name=name,
                url=f"{told.base_url}/{name}",
                bytes=len(content),
                digests={kind: hashlib.new(kind, content).hexdigest() for kind in ("sha256", "md5")},
            )
            for name, content in FILES.items()
        )
        monkeypatch.setattr(download, "downloads", lambda _name: published)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield told


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_get_fetches_every_file_and_reports_progress(server: Server, cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    folder = download.get("mnist", progress=lambda done, total: seen.append((done, total)))
    assert folder == cache / "mnist"
    assert held(folder) == FILES
    total = sum(map(len, FILES.values()))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert len(seen) > 3


def test_get_keeps_what_is_there_and_replaces_what_is_wrong(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.gz").write_bytes(FILES["one.gz"])
    (tmp_path / "two.gz").write_bytes(b"wrong file!")
    download.get("mnist", folder=tmp_path, base_url=server.base_url)
    assert [name for name, _ in server.asked] == ["two.gz"]
    assert held(tmp_path) == FILES


def test_get_goes_on_where_the_last_call_was_interrupted(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, _total: int | None) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.get("mnist", folder=tmp_path, progress=interrupt)
    here = (tmp_path / "one.gz.part").stat().st_size
    assert 300_000 < here < 900_000
    download.get("mnist", folder=tmp_path)
    assert server.asked[1] == ("one.gz", f"bytes={here}-")
    assert held(tmp_path) == FILES


def test_get_starts_over_where_the_server_ignores_ranges(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "one.gz.part").write_bytes(b"begun")
    download.get("mnist", folder=tmp_path)
    assert server.asked[0] == ("one.gz", "bytes=5-")
    assert held(tmp_path) == FILES


def test_get_resumes_by_itself_when_the_connection_is_cut(server: Server, tmp_path: Path) -> None:
    server.cut_after = 400_000
    download.get("mnist", folder=tmp_path)
    assert [asked for name, asked in server.asked if name == "one.gz"] == ["", "bytes=400000-", "bytes=800000-"]
    assert held(tmp_path) == FILES


@pytest.mark.parametrize("announces", [True, False])
def test_a_connection_that_keeps_breaking_leaves_a_part_to_go_on_from(
    server: Server, tmp_path: Path, announces: bool
) -> None:
    server.cut_after, server.announces_length = 1000, announces
    with pytest.raises(
        DataError, match=r"one\.gz: the connection .*3000 of 900000 bytes .* run the same command again"
    ):
        download.get("mnist", folder=tmp_path)
    assert list(held(tmp_path)) == ["one.gz.part"]
    server.cut_after = None
    download.get("mnist", folder=tmp_path)
    assert server.asked[3] == ("one.gz", "bytes=3000-")
    assert held(tmp_path) == FILES


def test_wrong_bytes_are_removed_and_reported(server: Server, tmp_path: Path) -> None:
    server.files["one.gz"] = bytes(900_000)
    with pytest.raises(DataError, match=r"one\.gz: what came does not have the published sha256 [0-9a-f]{64} and was"):
        download.get("mnist", folder=tmp_path)
    assert held(tmp_path) == {}


def test_a_wrong_part_is_found_and_the_next_call_succeeds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.gz.part").write_bytes(b"wrong start")
    with pytest.raises(DataError, match="and was removed"):
        download.get("mnist", folder=tmp_path)
    download.get("mnist", folder=tmp_path)
    assert held(tmp_path) == FILES


@pytest.mark.parametrize("size", [900_000, 900_001])
def test_a_part_that_is_whole_or_too_long_is_judged_by_its_checksum(server: Server, tmp_path: Path, size: int) -> None:
    (tmp_path / "one.gz.part").write_bytes((FILES["one.gz"] + b"x")[:size])
    download.get("mnist", folder=tmp_path)
    assert [name for name, _ in server.asked] == ["two.gz"] if size == 900_000 else ["one.gz", "two.gz"]
    assert held(tmp_path) == FILES


REFUSALS: dict[str, tuple[dict[str, Any], str, int]] = {
    "not there": ({"files": {}}, r"the server refused \(404 ", 1),
    "forbidden": ({"status": 403}, r"the server refused \(403 ", 1),
    "overloaded": ({"status": 503}, r"the server answered 503 .*0 of 900000 bytes", 3),
    "no such range": ({"status": 416}, "the server answered 416", 3),
    "another file": ({"files": {"one.gz": b"<html>log in first</html>"}}, "offers 25 bytes instead of 900000", 1),
    "to a local file": ({"redirect": "file:///etc/hostname"}, r"the server refused \(302 ", 1),
    "to ftp": ({"redirect": "ftp://127.0.0.1/x"}, "unknown url type: ftp", 3),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_data_error_and_leaves_nothing(server: Server, tmp_path: Path, case: str) -> None:
    told, message, requests = REFUSALS[case]
    for name, value in told.items():
        setattr(server, name, value)
    with pytest.raises(DataError, match=message):
        download.get("mnist", folder=tmp_path)
    assert len(server.asked) == requests
    assert held(tmp_path) == {}


@pytest.mark.parametrize("base_url", ["file:///etc", "ftp://127.0.0.1/", "127.0.0.1", "//host"])
def test_only_http_and_https_are_opened(tmp_path: Path, base_url: str) -> None:
    with pytest.raises(DataError, match="is no http or https address"):
        download.get("mnist", folder=tmp_path, base_url=base_url)


@pytest.mark.parametrize("base_url", ["http://", "http://127.0.0.1:9", "http://127.0.0.1:none", "http://a b/"])
def test_a_server_that_cannot_be_reached_is_one_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_url: str
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DataError, match="no connection"):
        download.get("mnist", folder=tmp_path, base_url=base_url)


def test_a_folder_that_cannot_be_made_is_one_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written"):
        download.get("mnist", folder=tmp_path / "file" / "mnist")


def test_a_bundled_set_needs_no_download() -> None:
    with pytest.raises(DataError, match="comes with scikit-learn, so there is nothing to fetch"):
        download.get("digits")


def test_a_set_that_nobody_serves_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"kws12: cannot be fetched; let CROSSLAYER_DATA name .* speech_commands/"):
        download.get("kws12")
    with pytest.raises(DataError, match=r"kws12: not found\. .* let CROSSLAYER_DATA name"):
        catalog.load("kws12")


@pytest.mark.parametrize("change", ["short", "missing", "wild"])
def test_damaged_speech_features_are_refused(change: str, tmp_path: Path) -> None:
    arrays = {
        "logmel": np.zeros((3, 4, 5), np.uint8),
        "scale": np.float32(0.1),
        "offset": np.float32(-1),
        "label": np.array([0, 1, 9 if change == "wild" else 1], np.uint8)[: 2 if change == "short" else 3],
        "split": np.array([0, 0, 1], np.uint8),
        "classes": np.array(["a", "b"]),
    }
    if change == "missing":
        del arrays["offset"]
    np.savez(tmp_path / speech.FILE, **arrays)
    with pytest.raises(DataError, match="lacks offset" if change == "missing" else "do not fit one another"):
        speech.read(tmp_path)


def test_every_stored_set_can_be_fetched_and_every_bundled_one_needs_not() -> None:
    for source in catalog.SOURCES:
        files = download.downloads(source.name)
        assert bool(files) == (isinstance(source.origin, catalog.Stored) and source.origin.public)
        for file in files:
            assert file.url.startswith(("https://", "http://"))
            assert file.url.endswith(f"/{file.name}")
            assert len(file.digests["sha256"]) == 64
            assert set(file.digests) <= {"sha256", "md5"}


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_checksums_are_those_of_the_real_files(name: str) -> None:
    folder = shared(name.replace("-", "_"))
    assert all(file.is_held_by(folder / file.name) for file in download.downloads(name))


REAL_VALIDATION_COUNTS = {
    "mnist": [592, 674, 596, 613, 584, 542, 592, 627, 585, 595],
    "fashion-mnist": [600] * 10,
}


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_idx_sets_have_their_published_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, str(shared(name.replace("-", "_")).parent))
    data = catalog.load(name)
    assert data.shape == (28, 28, 1)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [54_000, 6_000, 10_000]
    assert np.bincount(data.validation.labels).tolist() == REAL_VALIDATION_COUNTS[name]
    assert (data.train.codes.dtype, data.train.scale, data.train.offset) == (np.uint8, 1 / 255, 0.0)
    check_carving(data, idx.read(shared(name.replace("-", "_")), data.classes).train, own_test=True)


def test_the_real_mnist_travels_over_http_and_loads_by_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({path.name: path.read_bytes() for path in shared("mnist").glob("*.gz")}) as server:
        assert download.get("mnist", base_url=server.base_url) == catalog.locate("mnist") == cache / "mnist"
    assert np.bincount(catalog.load("mnist").test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


@pytest.mark.slow
def test_the_real_cifar_sheets_decode_to_the_published_bytes() -> None:
    found = cifar.read(shared("cifar10"))
    assert found.test is not None
    assert hashlib.sha256(found.train.codes.tobytes()).hexdigest() == (
        "c7c6557433f8d7c52900e0fc5549bd21bf6f33fefee1f478f5adbc5499bb11c7"
    )
    assert hashlib.sha256(found.test.codes.tobytes()).hexdigest() == (
        "25a508aee148b4ccf689df271258bb61c79db1edd6c7bdc2d32e0f748c0bf68c"
    )
    assert np.bincount(found.train.labels).tolist() == [5000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    mean = found.train.codes.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


def test_a_real_cifar_sheet_decodes(tmp_path: Path) -> None:
    folder = shared("cifar10")
    with np.load(folder / cifar.LABELS, allow_pickle=False) as arrays:
        write_npz(tmp_path / cifar.LABELS, train=arrays["train"][:1000], test=arrays["test"][:1000])
    for name in ("train_00.webp", "test_00.webp"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    found = cifar.read(tmp_path)
    assert [cifar.CLASSES[k] for k in found.train.labels[:4]] == ["frog", "truck", "truck", "deer"]
    assert found.train.codes[0, 0, 0].tolist() == [59, 62, 63]
