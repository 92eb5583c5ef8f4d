"""Number codes, fixed-point arithmetic and plain values, each against its definition in Python integers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslayer.core.codec import from_plain, suggest, to_plain
from crosslayer.core.errors import CrosslayerError, GraphError, InputError
from crosslayer.core.files import folder_atomic, sha256, sweep_partials, write_atomic
from crosslayer.core.fixed import (
    Rescale,
    Rule,
    divide_by_power,
    doubling_high,
    multiply_double,
    multiply_single,
    rescale,
    split_factor,
)
from crosslayer.core.quant import Quant, affine, pack, packed_bytes, symmetric
from crosslayer.core.score import wilson

INT32 = st.integers(-(2**31), 2**31 - 1)
FLOATS = st.floats(width=32)
FACTORS = st.floats(1e-12, 1e9)
HALVES = st.tuples(st.integers(1, 7), st.integers(5, 7)).map(lambda pair: pair[0] * 2.0 ** -pair[1])
"""Factors that make results exactly between two integers."""
SUMS = st.lists(INT32 | st.integers(-40, 40).map((8).__mul__), min_size=1, max_size=6)


def codes() -> st.SearchStrategy[Quant]:
    def build(bits: int, scale: float, zero: int) -> Quant:
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return Quant(bits=bits, scale=(scale,), zero=(max(low, min(high, zero)),))

    scales = st.floats(2.0**-40, 2.0**40, width=32)
    return st.builds(build, st.integers(2, 16), scales, st.integers(-(2**15), 2**15 - 1))


# definitions, one value at a time


def encoded(real: float, quant: Quant) -> int:
    """TFLite `AffineQuantize`: the float32 quotient, halves away from zero."""
    with np.errstate(over="ignore"):
        quotient = np.float32(real) / np.float32(quant.scale[0])
    if np.isnan(quotient):
        return quant.lowest
    if not np.isfinite(quotient):
        return quant.highest if quotient > 0 else quant.lowest
    return max(quant.lowest, min(quant.highest, away(Fraction(float(quotient))) + quant.zero[0]))


def away(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))


def wrapped(value: int) -> int:
    """What an int32 register keeps."""
    return (value + 2**31) % 2**32 - 2**31


def high_product(a: int, b: int) -> int:
    """gemmlowp `SaturatingRoundingDoublingHighMul`, as its comment defines it."""
    if a == b == -(2**31):
        return 2**31 - 1
    product = a * b
    nudge = 2**30 if product >= 0 else 1 - 2**30
    return int(Fraction(product + nudge, 2**31))  # int() truncates, as C's division does


@given(codes(), FLOATS)
def test_encoding_is_its_definition(quant: Quant, real: float) -> None:
    assert quant.encode(np.array([real], np.float32)).tolist() == [encoded(real, quant)]


@given(codes(), st.integers(-(2**15), 2**15 - 1))
def test_halves_go_away_from_zero(quant: Quant, whole: int) -> None:
    exact = Quant(bits=quant.bits, scale=(0.25,), zero=quant.zero)
    real = (whole + math.copysign(0.5, whole)) * 0.25
    expected = whole + int(math.copysign(1, whole)) + quant.zero[0]
    assert exact.encode(np.array([real])).tolist() == [max(quant.lowest, min(quant.highest, expected))]


@given(codes(), st.data())
def test_a_code_survives_decoding_and_encoding(quant: Quant, data: st.DataObject) -> None:
    code = data.draw(st.integers(quant.lowest, quant.highest))
    stored = np.array([code], quant.dtype)
    assert quant.encode(quant.decode(stored)).tolist() == [code]
    assert quant.decode(stored).dtype == np.float32


@pytest.mark.parametrize(("real", "code"), [(np.inf, 127), (-np.inf, -128), (np.nan, -128), (3e38, 127), (-3e38, -128)])
def test_what_no_code_can_hold_saturates(real: float, code: int) -> None:
    for scale in (1e-30, 1.0, 1e30):
        expected = code if scale <= 1 or not math.isfinite(real) or abs(real / scale) > 128 else None
        found = Quant(bits=8, scale=(scale,)).encode(np.array([real], np.float32)).tolist()
        assert expected is None or found == [expected]


@given(st.integers(0, 2), st.lists(st.floats(0.01, 10), min_size=3, max_size=3))
def test_per_channel_codes_are_one_code_for_each_channel(axis: int, scales: list[float]) -> None:
    real = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    quant = Quant(bits=8, scale=tuple(scales), axis=axis)
    for i, scale in enumerate(scales):
        alone = Quant(bits=8, scale=(scale,))
        part = np.take(real, i, axis)
        assert np.array_equal(np.take(quant.encode(real), i, axis), alone.encode(part))
        assert np.array_equal(np.take(quant.decode(quant.encode(real)), i, axis), alone.decode(alone.encode(part)))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 16))
def test_an_affine_code_covers_its_range_and_holds_zero(a: float, b: float, bits: int) -> None:
    low, high = min(a, b), max(a, b)
    quant = affine(low, high, bits)
    assert quant.lowest <= quant.zero[0] <= quant.highest
    assert quant.decode(np.array([quant.zero[0]])).tolist() == [0.0]
    if max(high, 0.0) - min(low, 0.0) > 1e-20:
        exact = quant.lowest - min(low, 0.0) / ((max(high, 0.0) - min(low, 0.0)) / (quant.highest - quant.lowest))
        assert quant.zero[0] == 0 if bits > 8 else abs(quant.zero[0] - exact) <= 0.5 + 1e-6
    ends = quant.decode(quant.encode(np.array([low, high])))
    assert np.abs(ends - [low, high]).max() <= quant.scale[0] * 1.01


@given(st.lists(st.just(0.0) | st.floats(1e-20, 1e6), min_size=1, max_size=5), st.integers(2, 8))
def test_a_symmetric_code_reaches_its_peak_without_the_lowest_code(peaks: list[float], bits: int) -> None:
    quant = symmetric(np.array(peaks), bits, axis=0)
    assert set(quant.zero) == {0}
    found = quant.encode(np.array([peaks, [-p for p in peaks]]).T).T
    top = (1 << (bits - 1)) - 1
    expected = [top if p > 0 else 0 for p in peaks]
    assert (found[0].tolist(), found[1].tolist()) == (expected, [-e for e in expected])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"bits": 1, "scale": (1.0,), "zero": (1,)}, "symmetric: its zero must be 0"),
        ({"bits": 17, "scale": (1.0,)}, "1…16 bits .* not 17"),
        ({"bits": 8, "scale": (0.0,)}, "scales must be positive and finite"),
        ({"bits": 8, "scale": (math.nan,)}, "scales must be positive and finite"),
        ({"bits": 8, "scale": (math.inf,)}, "scales must be positive and finite"),
        ({"bits": 8, "scale": (1e-60,)}, "scales must be positive and finite"),
        ({"bits": 8, "scale": (1.0, 2.0)}, "2 scales and 2 zeros do not make a code with axis None"),
        ({"bits": 8, "scale": (1.0, 2.0), "zero": (0, 0, 0), "axis": 0}, "2 scales and 3 zeros"),
        ({"bits": 8, "scale": (), "axis": 0}, "do not make a code"),
        ({"bits": 8, "scale": (1.0,), "zero": (128,)}, "zeros must be codes of 8 bits"),
        ({"bits": 4, "scale": (1.0,), "zero": (-9,)}, "zeros must be codes of 4 bits"),
    ],
)
def test_a_code_without_sense_does_not_construct(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        Quant(**fields)


def test_scales_are_those_of_float32() -> None:
    assert Quant(bits=8, scale=(0.1,)).scale == (float(np.float32(0.1)),)
    assert Quant(bits=8, scale=(0.1,)) == Quant(bits=8, scale=(float(np.float32(0.1)),))


BITS = [(2, "int8"), (8, "int8"), (9, "int16"), (16, "int16"), (32, "int32"), (64, "int64")]


@pytest.mark.parametrize(("bits", "stored"), BITS)
def test_codes_are_stored_in_the_smallest_type(bits: int, stored: str) -> None:
    quant = Quant(bits=bits, scale=(1.0,))
    assert quant.dtype == stored
    assert (quant.lowest, quant.highest) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def test_a_code_of_one_bit_is_the_sign() -> None:
    quant = symmetric(np.array([3.0, 0.25]), 1, axis=0)
    assert (quant.lowest, quant.highest, quant.scale) == (-1, 1, (3.0, 0.25))
    real = np.array([[-2.0, -0.0, 1e-30], [0.0, 9.0, -1e-30]])
    assert quant.encode(real).tolist() == [[-1, 1, 1], [1, 1, -1]]
    assert quant.decode(quant.encode(real)).tolist() == [[-3.0, 3.0, 3.0], [0.25, 0.25, -0.25]]


@pytest.mark.parametrize("bits", [1, 17, 32])
def test_an_activation_has_2_to_16_bits(bits: int) -> None:
    with pytest.raises(GraphError, match=f"2…16 bits, not {bits}"):
        affine(-1.0, 1.0, bits)


@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_packed_codes_lie_one_after_the_other_from_the_lowest_bit_on(bits: int, seed: int, count: int) -> None:
    quant = Quant(bits=bits, scale=(1.0,))
    values = np.random.default_rng(seed).integers(quant.lowest, quant.highest + 1, count, np.int8)
    codes = np.where(values == 0, -1, values) if bits == 1 else values
    stream = int.from_bytes(pack(codes.astype(np.int8), bits).tobytes(), "little")
    fields = [stream >> (i * bits) & ((1 << bits) - 1) for i in range(count)]
    read = [2 * f - 1 if bits == 1 else f - ((f >> (bits - 1)) << bits) for f in fields]
    assert read == codes.tolist()
    assert stream >> (count * bits) == 0
    last = ((count - 1) * bits) // 8 + (8 % bits != 0)  # the last byte that a reader of the last code touches
    assert last < len(pack(codes, bits)) == packed_bytes(count, bits) <= last + 2


def test_codes_of_eight_and_more_bits_are_not_packed() -> None:
    for bits, kind in ((8, np.int8), (9, np.int16), (16, np.int16)):
        codes = np.array([[-3, 2], [1, 0]], kind)
        assert pack(codes, bits).tobytes() == codes.tobytes()
        assert packed_bytes(4, bits) == codes.nbytes


@given(FACTORS)
def test_a_factor_is_its_mantissa_and_shift(factor: float) -> None:
    mult, shift = split_factor(factor)
    if not -31 <= shift <= 30 or mult == 0:
        assert factor < 2.0**-31
        return
    assert 2**30 <= mult <= 2**31 - 1
    assert abs(Fraction(mult) * Fraction(2) ** (shift - 31) / Fraction(factor) - 1) <= Fraction(1, 2**31)


@pytest.mark.parametrize(
    ("factor", "pair"),
    [
        (0.0, (0, 0)),
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (1 - 2.0**-40, (2**30, 1)),  # the mantissa rounds up to 2^31 and is halved
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),
        (2.0**29, (2**30, 30)),
        (2.0**40, (2**31 - 1, 30)),
    ],
)
def test_factors_at_the_edges(factor: float, pair: tuple[int, int]) -> None:
    assert split_factor(factor) == pair


@given(INT32, INT32)
def test_the_high_product_is_its_definition(a: int, b: int) -> None:
    assert int(doubling_high(np.int64(a), np.int64(b))) == high_product(a, b)


@given(INT32, st.integers(0, 31))
def test_dividing_by_a_power_rounds_halves_away(value: int, exponent: int) -> None:
    assert int(divide_by_power(np.array(value), exponent)) == away(Fraction(value, 2**exponent))


@given(SUMS, FACTORS | HALVES)
def test_the_double_rule_is_its_definition(sums: list[int], factor: float) -> None:
    mult, shift = split_factor(factor)
    found = multiply_double(np.array(sums), np.array([mult]), np.array([shift])).tolist()
    expected = [
        away(Fraction(high_product(wrapped(value << max(shift, 0)), mult), 2 ** max(-shift, 0))) for value in sums
    ]
    assert found == expected
    assert rescale(np.array([factor]), Rule.DOUBLE)(np.array(sums)).tolist() == expected


@given(SUMS, st.floats(1e-9, 1.0) | HALVES)
def test_the_single_rule_is_its_definition(sums: list[int], factor: float) -> None:
    expected = [away(Fraction(float(value) * factor)) for value in sums]
    assert multiply_single(np.array(sums), np.array([factor])).tolist() == expected
    assert rescale(np.array([factor]), Rule.SINGLE)(np.array(sums)).tolist() == expected


@given(SUMS, st.floats(1e-9, 0.25) | HALVES)
def test_the_float_rule_is_its_definition(sums: list[int], factor: float) -> None:
    expected = [round(Fraction(float(np.float32(value) * np.float32(factor)))) for value in sums]  # halves to even
    assert rescale(np.array([factor]), Rule.FLOAT)(np.array(sums)).tolist() == expected


@given(st.lists(st.integers(-(2**47) + 1, 2**47 - 1) | INT32, min_size=1, max_size=6), st.floats(1e-9, 127.0) | HALVES)
def test_the_reduced_rule_is_its_definition(sums: list[int], factor: float) -> None:
    mult, shift = split_factor(factor)
    short = min((mult + 2**15) // 2**16, 2**15 - 1)
    expected = [math.floor(Fraction(value * short, 2 ** (15 - shift)) + Fraction(1, 2)) for value in sums]
    assert rescale(np.array([factor]), Rule.REDUCED)(np.array(sums)).tolist() == expected


def test_a_short_factor_is_less_than_128() -> None:
    with pytest.raises(GraphError, match="too small, by a factor of 128; give it a larger one"):
        rescale(np.array([1.0, 128.0]), Rule.REDUCED)


@given(st.lists(FACTORS, min_size=1, max_size=4))
def test_rescaling_per_channel_is_rescaling_each_channel(factors: list[float]) -> None:
    sums = np.random.default_rng(0).integers(-(2**20), 2**20, (5, len(factors)))
    for rule in Rule:
        factors = [min(factor, 100.0) for factor in factors] if rule is Rule.REDUCED else factors
        together = rescale(np.array(factors), rule)(sums)
        for i, factor in enumerate(factors):
            assert np.array_equal(together[:, i], rescale(np.array([factor]), rule)(sums[:, i : i + 1])[:, 0])


@settings(max_examples=30)
@given(st.floats(2.0**-24, 0.9), st.sampled_from(list(Rule)))
def test_rescaling_keeps_the_order(factor: float, rule: Rule) -> None:
    """What the fast executor relies on when it takes a largest sum before it rescales."""
    sums = np.sort(np.random.default_rng(1).integers(-(2**31), 2**31, 2000))
    found: Rescale = rescale(np.array([factor]), rule)
    assert (np.diff(found(sums[:, None])[:, 0]) >= 0).all()


# plain values


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 0:
            raise GraphError(f"size {self.size} is negative")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    flag: bool
    colour: Colour
    pair: tuple[int, str]
    inners: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    table: Mapping[str, float] = field(default_factory=dict[str, float])


INNERS = st.builds(Inner, size=st.integers(0, 10**20), share=st.floats(allow_nan=False))
OUTERS = st.builds(
    Outer,
    name=st.text(),
    flag=st.booleans(),
    colour=st.sampled_from(Colour),
    pair=st.tuples(st.integers(), st.text()),
    inners=st.lists(INNERS, max_size=3).map(tuple),
    maybe=st.none() | INNERS,
    table=st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
)
GOOD = {"name": "a", "flag": True, "colour": "red", "pair": [1, "b"]}


@given(OUTERS)
def test_a_value_survives_plain_text(value: Outer) -> None:
    import json

    plain = to_plain(value)
    assert from_plain(Outer, plain, "here") == value
    assert from_plain(Outer, json.loads(json.dumps(plain)), "here") == value


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"nmae": 1}, "here: unknown key 'nmae'; did you mean 'name'"),
        ({"name": None}, "here.name: expected str, got None"),
        ({"name": 3}, "here.name: expected str, got 3"),
        ({"flag": 1}, "here.flag: expected bool, got 1"),
        ({"flag": "true"}, "here.flag: expected bool"),
        ({"colour": "rde"}, "here.colour: 'rde' is not one of its values; did you mean 'red'"),
        ({"colour": "RED"}, "here.colour: 'RED' is not one of its values"),
        ({"colour": ["red"]}, "here.colour: .* is not one of its values"),
        ({"pair": [1]}, "here.pair: expected 2 values, got 1"),
        ({"pair": "ab"}, "here.pair: expected a list, got 'ab'"),
        ({"pair": [True, "b"]}, r"here.pair\[0\]: expected int, got True"),
        ({"pair": [1.0, "b"]}, r"here.pair\[0\]: expected int, got 1.0"),
        ({"inners": [{"size": 1}, {"size": "2"}]}, r"here.inners\[1\].size: expected int, got '2'"),
        ({"inners": [{}]}, r"here.inners\[0\]: missing key 'size'; add it"),
        ({"inners": {"size": 1}}, "here.inners: expected a list"),
        ({"maybe": {"size": -1}}, "here.maybe: size -1 is negative"),
        ({"maybe": []}, "here.maybe: expected dict"),
        ({"table": {"a": "b"}}, "here.table.a: expected float, got 'b'"),
        ({"table": [1]}, "here.table: expected dict"),
    ],
)
def test_a_wrong_value_is_told_where_and_what(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        from_plain(Outer, {**GOOD, **change}, "here")


def test_missing_keys_and_other_kinds_are_told() -> None:
    with pytest.raises(InputError, match="here: missing key 'name'; add it"):
        from_plain(Outer, {}, "here")
    for plain in (None, 3, "text", [], True):
        with pytest.raises(InputError, match="here: expected dict"):
            from_plain(Outer, plain, "here")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN, st.sampled_from(["name", "flag", "colour", "pair", "inners", "maybe", "table"]))
def test_no_plain_value_gets_past_the_types(junk: Any, key: str) -> None:
    """Whatever a file says, the result has the declared types or there is one kind of error."""
    try:
        value = from_plain(Outer, {**GOOD, key: junk}, "here")
    except CrosslayerError:
        return
    assert isinstance(value.name, str)
    assert isinstance(value.flag, bool)
    assert isinstance(value.colour, Colour)
    assert all(isinstance(inner, Inner) and isinstance(inner.share, float) for inner in value.inners)
    assert all(isinstance(v, float) for v in value.table.values())


def test_whole_numbers_are_floats_where_floats_are_meant() -> None:
    found = from_plain(Inner, {"size": 1, "share": 2}, "here")
    assert (found.share, type(found.share)) == (2.0, float)


def test_a_suggestion_names_the_nearest_or_all() -> None:
    assert suggest("leent5", ["lenet5", "vgg11"]) == "did you mean 'lenet5'?"
    assert suggest("zzz", ["lenet5", "vgg11"]) == "known are: lenet5, vgg11"


# files


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"file: cannot be written \(No space left on device\); free space"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    write_atomic(path, b"new")
    assert (path.read_text(), [p.name for p in tmp_path.iterdir()]) == ("new", ["file"])
    assert sha256(path) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with folder_atomic(path) as scratch:
        (scratch / "a").write_text("old")
        assert not path.exists()
    with pytest.raises(ValueError, match="invalid literal"), folder_atomic(path) as scratch:
        (scratch / "a").write_text(str(int("no number")))
    with pytest.raises(InputError, match="folder: cannot be written"), folder_atomic(path) as scratch:
        (scratch / "absent" / "a").write_text("new")
    assert [(p.name, p.read_text()) for p in path.iterdir()] == [("a", "old")]
    with folder_atomic(path) as scratch:
        (scratch / "b").write_text("new")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".a.1.partial").write_text("")
    (tmp_path / ".b.2.partial").mkdir()
    (tmp_path / "kept.partial").write_text("")
    sweep_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.partial"]


@given(st.integers(1, 10_000), st.data())
def test_an_interval_holds_the_share_and_stays_in_bounds(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low), abs=1e-9)
