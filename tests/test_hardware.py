import dataclasses
import math
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from crosslayer.core.codec import to_plain
from crosslayer.core.errors import InputError
from crosslayer.core.target import Core, Figure, MemoryKind, Target
from crosslayer.hardware.catalogue import list_targets, load_target
from crosslayer.hardware.cycles import cycles, latency
from crosslayer.hardware.energy import energy

NAMES = ["esp32c3", "stm32f769", "stm32g0b1", "stm32h7a3", "stm32l4r5", "stm32u575"]

# Instructions of CMSIS-NN (July 2026) on an emulated Cortex-M4, for the MLPerf Tiny networks.
CMSIS_NN = {"kws": 8_732_237, "vww": 27_511_201, "ic": 31_578_817, "ad": 674_584}

# MLPerf Tiny v1.0 results, closed/OctoML/results/microtvm_cmsis_nn/<board>/<task>/{performance,energy}/results.txt.
L4R5_MILLISECONDS = {"kws": 99.81, "vww": 301.20, "ic": 389.56, "ad": 8.60}
L4R5_MILLIJOULES = {"kws": 5.23, "vww": 15.53, "ic": 20.24, "ad": 0.44}
NRF5340_MILLISECONDS = {"kws": 76.1, "vww": 232.0, "ic": 316.0, "ad": 6.27}

# MLPerf Tiny v1.1 results, closed/bosch/results/<board>/<task>/performance/results.txt: inferences per second of one
# code generator (HALE 1.0) and compiler on several boards; megahertz of each.
HALE = {
    "stm32l4r5": (120, {"kws": 15.954, "vww": 5.533, "ic": 5.586, "ad": 176.699}),
    "stm32f769": (216, {"kws": 54.293, "vww": 17.490, "ic": 16.242, "ad": 587.335}),  # measured on an STM32F746
    "stm32h7a3": (280, {"kws": 67.956, "vww": 22.906, "ic": 21.353, "ad": 737.281}),
    "stm32u575": (160, {"kws": 25.166, "vww": 8.715, "ic": 8.493, "ad": 262.993}),
}

# MLPerf Tiny v1.2 results, closed/STMicroelectronics/results/<board>/ic/energy/results.txt: milliwatts at 100 % load.
MILLIWATTS = {"stm32l4r5": 41.95, "stm32h7a3": 125.15, "stm32u575": 23.36}


def table(**changes: object) -> dict[str, object]:
    """A valid target file, with some keys replaced, or removed where the new value is None."""
    plain: dict[str, object] = to_plain(load_target("stm32l4r5"))
    plain |= changes
    return {key: item for key, item in plain.items() if item is not None}


def written(folder: Path, content: dict[str, object]) -> Path:
    path = folder / "board.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def test_the_shipped_targets_are_listed_by_name() -> None:
    assert [target.name for target in list_targets()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_target_is_found_under_the_name_that_its_file_states(name: str) -> None:
    assert load_target(name).name == name


def test_every_core_has_a_target() -> None:
    untimed = {Core.CORTEX_M55}  # no published times of one to take cycles per instruction from
    assert {target.core for target in list_targets()} == set(Core) - untimed


@pytest.mark.parametrize("target", list_targets(), ids=NAMES)
def test_every_figure_has_a_source_and_lies_in_its_interval(target: Target) -> None:
    figures = [target.cycles_per_instruction]
    if target.active_power is not None:
        figures.append(target.active_power)
    for figure in figures:
        assert 0 < figure.low <= figure.value <= figure.high < math.inf
    sources = [target.clock_source, *(item.source for item in (*target.memories, *figures))]
    assert all(len(source) > 30 and "  " not in source for source in sources)


def test_the_default_target_is_the_device_of_the_talk() -> None:
    target = load_target("stm32f769")
    assert (target.core, target.clock_hz) == (Core.CORTEX_M7, 216_000_000)
    assert target.capacity(MemoryKind.RAM) == 512 * 1024
    assert target.capacity(MemoryKind.FLASH) == 2 * 1024 * 1024
    assert target.active_power is not None
    assert "Transferred from another device" in target.active_power.source


def test_a_target_of_the_user_is_read_from_a_path(tmp_path: Path) -> None:
    path = written(tmp_path, table(name="mine", clock_hz=80_000_000))
    assert load_target(path) == load_target(str(path))
    assert load_target(path).clock_hz == 80_000_000


def test_a_target_survives_being_written_and_read(tmp_path: Path) -> None:
    for target in list_targets():
        plain = {key: item for key, item in to_plain(target).items() if item is not None}
        assert load_target(written(tmp_path, plain)) == target


def test_active_power_may_be_left_out(tmp_path: Path) -> None:
    assert load_target(written(tmp_path, table(active_power=None))).active_power is None


FIGURE = {"value": 2.0, "low": 1.0, "high": 3.0, "source": "a document"}
FLASH = {"name": "flash", "kind": "flash", "bytes": 1024, "source": "a document"}
RAM = {"name": "sram", "kind": "ram", "bytes": 1024, "source": "a document"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock": 1}, "unknown key 'clock'; did you mean 'clock_hz'?"),
        ({"clock_hz": None}, "missing key 'clock_hz'; add it"),
        ({"clock_hz": "fast"}, "target.clock_hz: expected int, got 'fast'"),
        ({"clock_hz": 1.5}, "target.clock_hz: expected int, got 1.5"),
        ({"clock_hz": True}, "target.clock_hz: expected int, got True"),
        ({"clock_hz": 0}, "target.clock_hz: 0 is not a positive, finite number"),
        ({"clock_source": " "}, "target.clock_source: empty; name the document"),
        ({"core": "cortex-m5"}, "target.core: 'cortex-m5' is not one of its values"),
        ({"memories": 3}, "target.memories: expected a list"),
        ({"memories": [FLASH]}, "target.memories: none of kind 'ram'; add one"),
        ({"memories": [FLASH, RAM | {"kind": "rom"}]}, "target.memories[1].kind: 'rom' is not one of its values"),
        ({"memories": [FLASH, RAM | {"bytes": -1}]}, "target.memories[1].bytes: -1 is not a positive"),
        ({"memories": [{"name": "flash", "kind": "flash", "bytes": 1}]}, "target.memories[0]: missing key 'source'"),
        ({"cycles_per_instruction": 1.4}, "target.cycles_per_instruction: expected dict"),
        ({"cycles_per_instruction": FIGURE | {"source": ""}}, "target.cycles_per_instruction.source: empty"),
        (
            {"cycles_per_instruction": FIGURE | {"low": -1.0}},
            "target.cycles_per_instruction.low: -1.0 is not a positive",
        ),
        ({"cycles_per_instruction": FIGURE | {"low": 2.5}}, "lies outside its interval"),
        ({"cycles_per_instruction": FIGURE | {"value": math.nan}}, "lies outside its interval"),
        ({"active_power": FIGURE | {"high": math.inf}}, "target.active_power.high: inf is not a positive, finite"),
        (
            {"active_power": {"value": 1.0, "low": 1.0, "high": 1.0}},
            "target.active_power: missing key 'source'; add it",
        ),
    ],
)
def test_a_wrong_target_file_gets_one_error_that_names_file_and_key(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, table(**changes))
    with pytest.raises(InputError) as caught:
        load_target(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); check the path"),
        (b"name = ", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
        (b"", "missing key 'name'; add it"),
    ],
)
def test_a_damaged_target_file_gets_one_error(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"board\.toml") as caught:
        load_target(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stm32f767", "did you mean 'stm32f769'?"),
        ("arduino", "known are: esp32c3, stm32f769"),
        ("", "known are: esp32c3, stm32f769"),
        ("../targets/stm32f769", "did you mean 'stm32f769'?"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_target(name)
    assert message in str(caught.value)


bounds = st.lists(st.floats(1e-12, 1e3), min_size=3, max_size=3).map(sorted)


@given(instructions=st.integers(0, 10**12), ratio=bounds, power=bounds, clock_hz=st.integers(1, 10**10))
def test_estimates_are_ordered_and_follow_their_equations(
    instructions: int, ratio: list[float], power: list[float], clock_hz: int
) -> None:
    target = dataclasses.replace(
        load_target("stm32l4r5"),
        clock_hz=clock_hz,
        cycles_per_instruction=Figure(low=ratio[0], value=ratio[1], high=ratio[2], source="test"),
        active_power=Figure(low=power[0], value=power[1], high=power[2], source="test"),
    )
    time, joules = latency(instructions, target), energy(instructions, target)
    assert joules is not None
    assert 0 <= time.low <= time.value <= time.high
    assert 0 <= joules.low <= joules.value <= joules.high
    assert time.value == pytest.approx(instructions * ratio[1] / clock_hz)
    assert joules.high == pytest.approx(time.high * clock_hz * power[2])


def test_energy_is_unknown_where_no_power_is_known() -> None:
    assert energy(1_000, load_target("stm32g0b1")) is None


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(InputError, match="-1 instructions"):
        cycles(-1, load_target("stm32l4r5"))


@pytest.mark.parametrize("task", CMSIS_NN)
def test_published_latencies_of_the_l4r5_lie_in_the_predicted_interval(task: str) -> None:
    time = latency(CMSIS_NN[task], load_target("stm32l4r5"))
    assert time.low < L4R5_MILLISECONDS[task] / 1e3 < time.high
    assert time.value == pytest.approx(L4R5_MILLISECONDS[task] / 1e3, rel=0.1)


@pytest.mark.parametrize("task", CMSIS_NN)
def test_published_energies_of_the_l4r5_lie_in_the_predicted_interval(task: str) -> None:
    joules = energy(CMSIS_NN[task], load_target("stm32l4r5"))
    assert joules is not None
    assert joules.low < L4R5_MILLIJOULES[task] / 1e3 < joules.high


@pytest.mark.parametrize("task", CMSIS_NN)
def test_published_latencies_of_another_cortex_m33_lie_in_the_predicted_interval(task: str) -> None:
    nrf5340 = dataclasses.replace(load_target("stm32u575"), clock_hz=128_000_000)
    time = latency(CMSIS_NN[task], nrf5340)
    assert time.low < NRF5340_MILLISECONDS[task] / 1e3 < time.high


@pytest.mark.parametrize("name", ["stm32f769", "stm32h7a3", "stm32u575"])
def test_published_speed_ratios_between_boards_agree_with_the_predicted_ones(name: str) -> None:
    reference, target = load_target("stm32l4r5"), load_target(name)
    megahertz, rates = HALE[name]
    assert target.clock_hz == megahertz * 1_000_000
    for task, rate in rates.items():
        measured = HALE["stm32l4r5"][1][task] / rate
        predicted = latency(CMSIS_NN[task], target).value / latency(CMSIS_NN[task], reference).value
        assert predicted == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("name", MILLIWATTS)
def test_published_power_lies_in_the_interval_of_the_target(name: str) -> None:
    target = load_target(name)
    assert target.active_power is not None
    assert target.active_power.low < MILLIWATTS[name] / 1e3 / target.clock_hz < target.active_power.high
