"""Whatever is wrong with what the user gives: one message that says where, what and what to do; nothing is written."""

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import numpy as np
import pytest

from commands import TINY, call, tree
from crosslayer.core.bench import Bench
from crosslayer.core.design import Design, save_design
from crosslayer.datasets.catalog import load
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.norms import FoldNorms
from datasets_samples import rows, write_idx_set, write_npz, write_text

Arrange = Callable[[Path], list[str]]


@pytest.fixture(autouse=True)
def _no_data_but_bundled(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path_factory.mktemp("nothing")
    monkeypatch.setenv("CROSSLAYER_DATA", str(empty))
    monkeypatch.setattr("crosslayer.datasets.places.cache_folder", lambda: empty)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a design that is in order."""
    data = load("digits")
    design = Design(graph=network("lenet5", data.shape, 10, 0), target=load_target("stm32f769"))
    for stage in (FoldNorms(), QuantizeAffine(samples=8), PlanArena()):
        design = stage(design, Bench(data=data, seed=0, executor=execute))
    folder = tmp_path_factory.mktemp("good") / "design"
    save_design(design, folder)
    return folder


def assert_refused(arguments: list[str], says: tuple[str, ...], where: Path) -> None:
    before = tree(where)
    answer = call(*arguments)
    assert answer.status == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.count("error:") == 1, answer.err
    assert answer.err.count("\n") == 1, answer.err
    for text in says:
        assert text in answer.err
    assert tree(where) == before


def in_study(old: str, new: str) -> Arrange:
    """A run of the tiny study with a piece of text replaced."""

    def arrange(folder: Path) -> list[str]:
        assert TINY.count(old) == 1
        study = folder / "study.toml"
        study.write_text(TINY.replace(old, new))
        return ["run", str(study), "--out", str(folder / "out")]

    return arrange


STUDIES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown key": ("samples = 2", "sample = 2", ("study.toml: unknown key 'sample'", "did you mean 'samples'?")),
    "unknown key in a table": ("name = ", "nam = ", ("study.toml.target: unknown key 'nam'", "did you mean 'name'?")),
    "missing table": ('[data]\nsource = "digits"', "", ("study.toml: missing key 'data'; add it",)),
    "missing key": ('source = "digits"', "", ("study.toml.data: missing key 'source'; add it",)),
    "a table that is none": ('[network]\nsource = "lenet5"', 'network = "lenet5"', ("study.toml.network: expected",)),
    "samples of text": ("samples = 2", 'samples = "2"', ("study.toml.samples: expected int, got '2'",)),
    "no samples": ("samples = 2", "samples = 0", ("study.toml: samples must be at least 1",)),
    "negative seed": ("samples = 2", "seed = -1", ("study.toml: samples must be at least 1 and seed at least 0",)),
    "seed that is a truth value": ("samples = 2", "seed = true", ("study.toml.seed: expected int, got True",)),
    "no TOML": ("[target]", "[target", ("study.toml: is not TOML", "line 7", "correct that place")),
    "a key given twice": ("samples = 2", "samples = 2\nsamples = 3", ("study.toml: is not TOML", "line 3")),
    "unknown network": ('"lenet5"', '"lenet"', ("network 'lenet' is not known; did you mean 'lenet5'?",)),
    "no classifier": ('"lenet5"', '"autoencoder"', ("network 'autoencoder' is no classifier",)),
    "unknown data": ('"digits"', '"digit"', ("'digit' is neither a known data set nor", "did you mean digits?")),
    "absent data": ('"digits"', '"mnist"', ("mnist: not found", "`crosslayer datasets get mnist` fetches it")),
    "unknown target": ('"stm32f769"', '"stm32f7"', ("target 'stm32f7': neither", "did you mean 'stm32f769'?")),
    "absent target file": ('"stm32f769"', '"no.toml"', ("no.toml: cannot be read", "check the path")),
    "unknown stage": ('"train"', '"trian"', ("study.toml: stage[0]: unknown stage 'trian'; did you mean 'train'?",)),
    "stage without a name": ('use = "train"', "", ("study.toml: stage[0]: missing key 'use'; name a stage: ",)),
    "stage of another name": ('use = "train"', "use = 1", ("study.toml: stage[0]: missing key 'use'",)),
    "stages that are none": ("samples = 2", "stage = 3", ("study.toml: is not TOML",)),
    "unknown parameter": ("epochs = 1", "epoch = 1", ("stage[0] (train): unknown key 'epoch'; did you mean 'epochs'",)),
    "parameter of another type": ("epochs = 1", "epochs = 1.5", ("stage[0] (train).epochs: expected int, got 1.5",)),
    "parameter without a choice": ("epochs = 1", 'flip = "yes"', ("stage[0] (train).flip: expected bool",)),
    "learning after quantization": (
        '[[stage]]\nuse = "plan-arena"',
        '[[stage]]\nuse = "fine-tune"',
        ("stage 5 (fine-tune): cannot train integer weights; put this stage before quantization",),
    ),
    "scales of norms that are not there": (
        'use = "train"\nepochs = 1',
        'use = "prune-channels"\nimportance = "batch-norm"',
        ("stage 1 (prune-channels): has no batch normalization whose scales",),
    ),
    "energy that nobody knows as a cost": (
        TINY.partition("[target]\n")[2],
        TINY.partition("[target]\n")[2]
        .replace("stm32f769", "stm32g0b1")
        .replace('use = "train"\nepochs = 1', 'use = "prune-channels"\ncost = "drop / energy"'),
        ("stage 1 (prune-channels): cost: no power figure of stm32g0b1 is known; write latency instead of energy",),
    ),
    "no plan at the end": ('[[stage]]\nuse = "plan-arena"', "", ("the recipe does not lead to firmware; let it end",)),
    "no integers at the end": (
        'use = "quantize-affine"\nsamples = 32',
        'use = "fold-norms"',
        ("with quantize-affine",),
    ),
    "unknown requirement": ("flash =", "flsh =", ("study.toml: require: unknown key 'flsh'; did you mean 'flash'?",)),
    "wrong unit": ('"64 KiB"', '"64 ms"', ("require.flash: '64 ms' has the wrong unit 'ms'; use one of B, kB,",)),
    "no unit": ('"64 KiB"', '"64"', ("require.flash: '64' has no unit; use one of B, kB,",)),
    "negative limit": ('"64 KiB"', '"-1 KiB"', ("require.flash: '-1 KiB' is negative; requirements are at least 0",)),
    "no quantity": ('"64 KiB"', '"few"', ("require.flash: 'few' is not a quantity; write a number and a unit",)),
    "endless limit": ('"64 KiB"', "inf", ("require.flash: inf is not a quantity",)),
    "limit that is a truth value": ('"64 KiB"', "true", ("require.flash: True is not a quantity",)),
    "limit beyond numbers": ('"64 KiB"', "1" + "0" * 400, ("is not a quantity",)),
    "power that nobody measured": (
        'name = "stm32f769"\n[require]\nflash = "64 KiB"',
        'name = "stm32g0b1"\n[require]\nenergy = "1 mJ"',
        ("require.energy: no power figure of stm32g0b1 is known; leave this requirement out",),
    ),
}


@pytest.mark.parametrize("case", STUDIES)
def test_a_wrong_study_is_refused(case: str, tmp_path: Path) -> None:
    old, new, says = STUDIES[case]
    assert_refused(in_study(old, new)(tmp_path), says, tmp_path)


PARAMETERS = {
    "train": ("epochs = 0", "epochs = -1", "batch = 0", "rate = 0", "rate = nan", "decay = -1", "shift = -1"),
    "train-robust": (
        *("epsilon = 0", "steps = 0\nepsilon = 0.1", "rate = 0\nepsilon = 0.1", 'method = "magic"\nepsilon = 0.1'),
    ),
    "train-certified": ("epsilon = 1.5", "kappa = 2\nepsilon = 0.1", "warm = 0.9\nepsilon = 0.1"),
    "fine-tune": ("epochs = 0", "batch = -3", "rate = inf", "distill = 0.5", 'teacher = "runs/x"'),
    "prune-channels": (
        *("step = 0", "step = 1", "step = 2", "rounds = 0", "drop = 1.5", "drop = -0.1", "keep = 0", "keep = 1.1"),
        *(
            "samples = 0",
            "patience = 0",
            "multiple = -1",
            "tuning = {batch = 0}",
            "tuning = {rate = -1}",
            "drop = nan",
            'cost = "money"',
        ),
        *("tuning = {distill = 2.0}", 'of = "money"', 'schedule = "never"'),
        *("evidence = 0", 'importance = "luck"', 'cost = "macs"', 'cost = "drop ("', "cost = 3"),
    ),
    "prune-weights": ("zeros = 0", "zeros = 1", 'pattern = "4:2"', 'pattern = "x"', "rounds = 0", "drop = -1"),
    "search-pruning": ("steps = []", "steps = [1.0]", "epochs = [-1]", 'least = "money"'),
    "measure-sensitivity": ("shares = []", "shares = [1.0]", "evidence = 0", "samples = 0"),
    "quantize-affine": ("samples = 0", 'rounding = "up"'),
    "plan-arena": ("order_states = -1", "offset_steps = -1"),
    "protect-weights": ("inferences = 0", "inferences = 10001", "parity = -1"),
}


@pytest.mark.parametrize(("stage", "line"), [(stage, line) for stage, lines in PARAMETERS.items() for line in lines])
def test_a_parameter_out_of_range_is_refused_when_the_study_is_read(stage: str, line: str, tmp_path: Path) -> None:
    arguments = in_study('use = "train"\nepochs = 1', f'use = "{stage}"\n{line}')(tmp_path)
    assert_refused(arguments, (f"study.toml: stage[0] ({stage})", line.partition(" ")[0]), tmp_path)


def absent_study(folder: Path) -> list[str]:
    return ["run", str(folder / "no.toml"), "--out", str(folder / "out")]


def folder_as_study(folder: Path) -> list[str]:
    return ["run", str(folder), "--out", str(folder / "out")]


def study_of_another_encoding(folder: Path) -> list[str]:
    (folder / "study.toml").write_bytes(TINY.encode("utf-16"))
    return ["run", str(folder / "study.toml"), "--out", str(folder / "out")]


def truncated_idx(folder: Path) -> list[str]:
    images = write_idx_set(folder / "set", packed=False) / "train-images-idx3-ubyte"
    os.truncate(images, 100)
    return in_study('"digits"', f'"{folder / "set"}"')(folder)


def pickle_as_npz(folder: Path) -> list[str]:
    path = write_npz(folder / "evil.npz", x=np.array([{}, {}], object), y=np.arange(2))
    return in_study('"digits"', f'"{path}"')(folder)


def table_for_a_network_of_images(folder: Path) -> list[str]:
    path = write_text(folder / "rows.csv", rows("a,b,label\n", 60))
    return in_study('"digits"', f'"{path}"')(folder)


def network_too_large(folder: Path) -> list[str]:
    pixels = np.zeros((60, 32, 32, 3), np.uint8)
    path = write_npz(folder / "pictures.npz", x=pixels, y=np.arange(60) % 10)
    text = TINY.replace('"digits"', f'"{path}"').replace('"lenet5"', '"vgg11"').replace("stm32f769", "stm32g0b1")
    (folder / "study.toml").write_text(text)
    return ["run", str(folder / "study.toml"), "--out", str(folder / "out")]


def broken_target(folder: Path) -> list[str]:
    (folder / "board.toml").write_text('name = "board"\nclock_hz = 1_000_000\n')
    return in_study('"stm32f769"', f'"{folder / "board.toml"}"')(folder)


def out_below_a_file(folder: Path) -> list[str]:
    (folder / "file").write_text("mine")
    return [*in_study("samples = 2", "samples = 1")(folder)[:3], str(folder / "file" / "out")]


def out_is_a_file(folder: Path) -> list[str]:
    (folder / "file").write_text("mine")
    return [*in_study("samples = 2", "samples = 1")(folder)[:3], str(folder / "file")]


def out_holds_foreign_files(folder: Path) -> list[str]:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")
    return in_study("samples = 2", "samples = 1")(folder)


def resume_into_foreign_files(folder: Path) -> list[str]:
    return [*out_holds_foreign_files(folder), "--resume"]


RUNS: Mapping[Arrange, tuple[str, ...]] = {
    absent_study: ("no.toml: cannot be read", "give a study file"),
    folder_as_study: ("cannot be read", "give a study file"),
    study_of_another_encoding: ("study.toml: cannot be read", "utf-8", "give a study file"),
    truncated_idx: ("train-images-idx3-ubyte", "ends too early"),
    pickle_as_npz: ("evil.npz: array x cannot be read", "objects are never unpickled"),
    table_for_a_network_of_images: ("network 'lenet5' takes (height, width, channels), the data has samples of [2]",),
    network_too_large: (
        "vgg11 on pictures",
        "of flash, stm32g0b1 has 524288 B",
        "choose a smaller network or a larger",
    ),
    broken_target: ("board.toml: target: missing key 'title'; add it",),
    out_below_a_file: ("file/out: cannot be written (Not a directory)", "choose another folder"),
    out_is_a_file: ("file: is not empty and not the folder of a run; choose another one",),
    out_holds_foreign_files: ("out: is not empty and not the folder of a run; choose another one",),
    resume_into_foreign_files: ("out: is not empty and not the folder of a run; choose another one",),
}


@pytest.mark.parametrize("arrange", RUNS, ids=lambda arrange: arrange.__name__)
def test_a_run_that_cannot_be_is_refused(arrange: Arrange, tmp_path: Path) -> None:
    assert_refused(arrange(tmp_path), RUNS[arrange], tmp_path)


def test_corrupt_data_below_the_named_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = write_idx_set(tmp_path / "sets" / "mnist") / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-12])
    monkeypatch.setenv("CROSSLAYER_DATA", str(tmp_path / "sets"))
    says = (str(labels), "`crosslayer datasets get mnist`")
    assert_refused(in_study('"digits"', '"mnist"')(tmp_path), says, tmp_path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


DESIGNS: Mapping[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated constants": (
        lambda folder: os.truncate(folder / "constants.safetensors", 1000),
        ("constants.safetensors: cannot be read", "the file is damaged, save the design again"),
    ),
    "empty constants": (lambda folder: os.truncate(folder / "constants.safetensors", 0), ("constants.safetensors",)),
    "a pickle in place of constants": (
        lambda folder: (folder / "constants.safetensors").write_bytes(pickle.dumps(Bomb())),
        ("constants.safetensors: cannot be read",),
    ),
    "no constants": (
        lambda folder: (folder / "constants.safetensors").unlink(),
        ("constants.safetensors: not a file",),
    ),
    "constants elsewhere": (
        lambda folder: (
            (folder / "constants.safetensors").rename(folder.parent / "elsewhere"),
            (folder / "constants.safetensors").symlink_to(folder.parent / "elsewhere"),
        ),
        ("constants.safetensors: not a file",),
    ),
    "truncated description": (lambda folder: os.truncate(folder / "design.json", 1000), ("design.json: ", "column")),
    "another format": (
        lambda folder: edit(folder / "design.json", "crosslayer-design-1", "crosslayer-design-9"),
        ("design.json: is not a 'crosslayer-design-1' file; save the design again with this version",),
    ),
    "a name that leads out of the folder": (
        lambda folder: edit(folder / "design.json", '"conv1.weight"', '"../../conv1.weight"'),
        ("design.json: graph.types: '../../conv1.weight' is not a legal name", "letters, digits"),
    ),
    "a name that is code": (
        lambda folder: edit(folder / "design.json", '"conv1"', '"conv1; system(0)"'),
        ("'conv1; system(0)' is not a legal name",),
    ),
    "an operation that is none": (
        lambda folder: edit(folder / "design.json", '"op": "Conv2d"', '"op": "os.system"'),
        ("design.json: graph.nodes[0]: unknown operation 'os.system'",),
    ),
    "a plan that overlaps": (
        lambda folder: (folder / "design.json").write_text(
            json.dumps((d := json.loads((folder / "design.json").read_text())) | {"plan": overlapping(d["plan"])})
        ),
        ("design.json: ",),
    ),
    "nesting without end": (
        lambda folder: (folder / "design.json").write_text("[" * 100_000),
        ("design.json: ",),
    ),
    "another encoding": (lambda folder: (folder / "design.json").write_bytes(b"\xff\xfe{"), ("design.json: ",)),
}


def overlapping(plan: dict[str, object]) -> dict[str, object]:
    offsets = plan["offsets"]
    assert isinstance(offsets, dict)
    return {**plan, "offsets": dict.fromkeys(offsets, 0)}


@pytest.mark.parametrize("command", ["inspect", "verify", "emulate"])
@pytest.mark.parametrize("case", DESIGNS)
def test_a_damaged_design_is_refused(command: str, case: str, good: Path, tmp_path: Path) -> None:
    damage, says = DESIGNS[case]
    folder = tmp_path / "design"
    shutil.copytree(good, folder)
    damage(folder)
    assert_refused([command, str(folder)], says, tmp_path)
    assert not Path("exploded").exists()


def test_a_design_cut_off_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "design")
    chance = np.random.default_rng(0)
    for name in ("design.json", "constants.safetensors"):
        path = tmp_path / "design" / name
        whole = path.read_bytes()
        for size in chance.integers(0, len(whole) - 2, 25):
            path.write_bytes(whole[:size])
            assert_refused(["inspect", str(tmp_path / "design")], (str(path),), tmp_path)
        path.write_bytes(whole)


def test_a_design_with_a_wrong_byte_is_refused_or_read_without_a_crash(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "design")
    chance = np.random.default_rng(0)
    for name in ("design.json", "constants.safetensors"):
        path = tmp_path / "design" / name
        whole = path.read_bytes()
        for place, byte in zip(chance.integers(0, min(len(whole), 6000), 60), chance.integers(0, 256, 60), strict=True):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            answer = call("inspect", tmp_path / "design", "--json")
            assert answer.status in (0, 2)
            assert (answer.out == "") == (answer.status == 2)
        path.write_bytes(whole)


COMMANDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown network": (("inspect", "lenet"), ("network 'lenet' is not known; did you mean 'lenet5'?",)),
    "unknown target": (("inspect", "lenet5", "--target", "stm"), ("target 'stm': neither a known name",)),
    "shape of words": (("inspect", "lenet5", "--shape", "a,b"), ("--shape: 'a,b' is no shape", "as 28,28,1")),
    "shape of zero": (("inspect", "lenet5", "--shape", "28,0,1"), ("--shape: '28,0,1' has a size below 1",)),
    "shape of two axes": (("inspect", "lenet5", "--shape", "28,28"), ("takes (height, width, channels)",)),
    "shape beyond memory": (("inspect", "lenet5", "--shape", "9000000,9000000,1"), ("memory",)),
    "inspect no design": (("inspect", "{folder}"), ("design.json: not a file; give the folder of a design",)),
    "verify no design": (("verify", "{folder}"), ("design.json: not a file; give the folder of a design",)),
    "verify no folder": (("verify", "{folder}/no"), ("is not there; give the folder of a design or run, or a",)),
    "unknown core": (("emulate", "{good}", "--core", "cortex-m5"), ("--core: 'cortex-m5'", "did you mean 'cortex-m")),
    "absent data": (("verify", "{good}", "--data", "mnist"), ("mnist: not found", "datasets get mnist")),
    "data of another shape": (("verify", "{good}", "--data", "{other}"), ("[5, 4, 1]", "[8, 8, 1]")),
    "samples beyond memory": (("verify", "{good}", "--samples", "999999999999999"), ("memory",)),
    "report of nothing": (("report", "{folder}"), ("not a file; give the folder of a",)),
    "unknown set": (("datasets", "get", "mnits"), ("no data set is called 'mnits'", "did you mean mnist?")),
    "bundled set": (("datasets", "get", "digits"), ("digits: comes with scikit-learn",)),
    "file address": (("datasets", "get", "mnist", "--url", "file:///etc"), ("is no http or https address",)),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_be_is_refused(case: str, good: Path, tmp_path: Path) -> None:
    arguments, says = COMMANDS[case]
    names = {"folder": tmp_path, "good": good, "other": write_idx_set(tmp_path / "other")}
    assert_refused([text.format(**names) for text in arguments], says, tmp_path)


USAGE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "unknown option": (("run", "--bogus"), "--bogus"),
    "unknown command": (("rnu",), "rnu"),
    "too many studies": (("run", "a.toml", "b.toml"), "b.toml"),
    "missing folder": (("verify",), "source"),
    "no samples": (("emulate", "{good}", "--samples", "0"), "--samples"),
    "no samples to verify": (("verify", "{good}", "--samples", "0"), "--samples"),
    "no emulated samples": (("verify", "{good}", "--emulated", "0"), "--emulated"),
    "negative seed": (("run", "--seed", "-1"), "--seed"),
    "seed of words": (("run", "--seed", "one"), "--seed"),
    "no classes": (("inspect", "lenet5", "--classes", "0"), "--classes"),
    "option without value": (("inspect", "lenet5", "--target"), "--target"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_usage_is_explained(case: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, names = USAGE[case]
    monkeypatch.chdir(tmp_path)
    answer = call(*(text.format(good=good) for text in arguments))
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.count("─ Error ─") == 1
    assert names in answer.err
    assert tree(tmp_path) == {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny study, which lies beside it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(TINY)
    answer = call("run", folder / "study.toml", "--out", folder / "out")
    assert answer.status == 0, answer
    return folder / "out"


HOPELESS: Mapping[str, tuple[str, str, str]] = {
    "a rate beyond reason": (
        "lenet5",
        "epochs = 2\nrate = 1e30",
        "training diverged in epoch 1: the loss is not finite",
    ),
    "one value per channel": ("mobilenet", "batch = 1", "a normalization needs a larger batch"),
}


@pytest.mark.parametrize("case", HOPELESS)
def test_a_training_that_cannot_succeed_ends_with_one_message(case: str, tmp_path: Path) -> None:
    network_name, parameters, says = HOPELESS[case]
    arguments = in_study("epochs = 1", parameters)(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(study.read_text().replace("lenet5", network_name))
    answer = call(*arguments)
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.count("\n") == 2
    assert answer.err.splitlines()[-1].startswith("error: stage 1 (train): ")
    assert says in answer.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".work", "study.toml"]


RUN_DAMAGE: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "no sheet": (lambda out: (out / "sheet.json").unlink(), "sheet.json: cannot be read"),
    "truncated sheet": (lambda out: os.truncate(out / "sheet.json", 500), "sheet.json: cannot be read"),
    "sheet of another kind": (lambda out: (out / "sheet.json").write_text("[1]"), "sheet.json: "),
    "sheet without scores": (lambda out: (out / "sheet.json").write_text("{}"), "sheet.json: missing key"),
    "sheet of another form": (lambda out: edit(out / "sheet.json", '"confusion": [[', '"confusion": [[1], ['), "sheet"),
    "no design": (lambda out: shutil.rmtree(out / "design"), "design.json: not a file; give the folder of a design"),
}


@pytest.mark.parametrize("case", RUN_DAMAGE)
def test_a_damaged_run_gives_no_report(case: str, finished: Path, tmp_path: Path) -> None:
    damage, says = RUN_DAMAGE[case]
    shutil.copytree(finished, tmp_path / "out")
    damage(tmp_path / "out")
    assert_refused(["report", str(tmp_path / "out")], (says,), tmp_path)


@pytest.fixture
def mount(tmp_path: Path) -> Generator[Callable[[str], Path]]:
    """Mounts a small disk with given options, again if it is mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options: str) -> Path:
        again = "remount," * disk.is_mount()
        command = ["mount", "-t", "tmpfs", "-o", again + options, "none", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting needs to be root")
        return disk

    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    yield mounted
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("percent", [0.5, 10, 40, 70, 90, 97])
def test_a_full_disk_is_one_message_and_the_run_goes_on_when_there_is_room(
    percent: float, finished: Path, mount: Callable[[str], Path]
) -> None:
    blocks = sum(-(-path.stat().st_size // 4096) for path in finished.rglob("*") if path.is_file())
    disk = mount(f"size={round(blocks * percent / 100) * 4096}")
    answer = call("run", finished.parent / "study.toml", "--out", disk / "out")
    assert answer.status == 2, answer
    assert answer.out == ""
    message = answer.err.splitlines()[-1]
    assert answer.err.count("error:") == 1
    assert message.startswith(("error: stage", f"error: {disk}"))
    assert "(No space left on device); free space or choose another folder" in message
    left = tree(disk / "out")
    assert [name for name in left if ".partial" in name] == []
    for name in left:
        top = name.partition("/")[0]
        assert top == ".work" or left[name] == tree(finished)[name]
    assert "scores.json" not in left
    mount("size=64m")
    again = call("run", finished.parent / "study.toml", "--out", disk / "out", "--resume")
    assert again.status == 0
    assert (disk / "out" / "scores.json").read_bytes() == (finished / "scores.json").read_bytes()


def test_a_disk_that_cannot_be_written_is_one_message(mount: Callable[[str], Path], tmp_path: Path) -> None:
    disk = mount("ro,size=1m")
    arguments = [*in_study("samples = 2", "samples = 1")(tmp_path)[:3], str(disk / "out")]
    assert_refused(arguments, (f"{disk}/out: cannot be written (Read-only file system)",), disk)
