"""Flips of weight bits on trained networks: how few ruin them, whether all are found, and what the check costs.

`--out` keeps the trained networks and finished attacks; tables go to stdout. Test data only judge what was found.
"""

import argparse
import ctypes
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from crosslayer.core.bench import Bench
from crosslayer.core.codec import from_plain, to_plain
from crosslayer.core.dataset import Dataset
from crosslayer.core.design import Design
from crosslayer.core.files import write_atomic
from crosslayer.core.quant import Array
from crosslayer.core.stage import run
from crosslayer.core.target import Core
from crosslayer.datasets.catalog import load
from crosslayer.emit.firmware import emit
from crosslayer.execute import reference
from crosslayer.execute.emulate import Emulation, Image
from crosslayer.execute.native import Native
from crosslayer.fault.flips import Flip, flipped, flipped_codes
from crosslayer.fault.protect import ProtectWeights
from crosslayer.fault.search import Attacker, Campaign, Effort, Knowledge, attack, least_flips
from crosslayer.flow import execute
from crosslayer.hardware.catalogue import load_target
from crosslayer.kernels.steps import steps_of
from crosslayer.kernels.weight_check import GROUP_WORDS, checked_tables, factors, groups, signatures, words_of
from crosslayer.learn.train import Train
from crosslayer.networks.zoo import network
from crosslayer.plan.arena import PlanArena
from crosslayer.quantize.affine import QuantizeAffine
from crosslayer.simplify.activations import FuseActivations
from crosslayer.simplify.integers import SimplifyIntegers
from crosslayer.simplify.norms import FoldNorms

RANDOM_SETS = 100_000
LATENCIES = (1, 2, 4, 8, 16, 32)
CORES = (Core.CORTEX_M4, Core.CORTEX_M0, Core.RV32)
ATTACKERS = (
    (Attacker(), 100),
    (Attacker(bits=(0, 1, 2, 3, 4, 5, 6)), 150),
    (Attacker(knowledge=Knowledge.MAGNITUDE), 20_000),
    (Attacker(knowledge=Knowledge.RANDOM), 20_000),
)
"""Each with the most flips that are tried."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, its data, how it is trained, and how many validation samples an attacker has, and judge."""

    source: str
    train: Train
    batch: int
    judged: int


CASES = {
    "lenet5": Case(source="mnist", train=Train(epochs=3), batch=128, judged=1000),
    "resnet8": Case(source="cifar10", train=Train(epochs=5, rate=4e-3, shift=4, flip=True), batch=64, judged=250),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of trained networks and finished attacks")
    parser.add_argument("--network", choices=list(CASES), action="append", help="all if left out")
    parser.add_argument("--seeds", type=int, default=5, help="attacks of each attacker")
    given = parser.parse_args()
    for name in given.network or CASES:
        case, data = CASES[name], load(CASES[name].source)
        design = trained(name, case, data, given.out)
        bench = Bench(data=data, seed=0, executor=execute)
        accuracy = bench.accuracy(design.graph, data.test)
        print(f"\n## {name} on {case.source}: {accuracy:.2%} of {len(data.test)} test samples, int8\n", flush=True)
        campaigns = [
            [attacked(design, case, data, who, most, seed, given.out / name) for seed in range(given.seeds)]
            for who, most in ATTACKERS
        ]
        print_flips(design, bench, campaigns)
        print_detection(design, bench, [c for row in campaigns[:3] for c in row])
        print_costs(design, bench)


def trained(name: str, case: Case, data: Dataset, out: Path) -> Design:
    design = Design(graph=network(name, data.shape, len(data.classes), 0), target=load_target("stm32f769"))
    stages = (case.train, FoldNorms(), FuseActivations(), QuantizeAffine(), SimplifyIntegers(), PlanArena())
    bench = Bench(data=data, seed=0, executor=execute)
    return run(stages, design, bench, judge=lambda design: (), checkpoints=out / name)


def stop_at(data: Dataset) -> float:
    """An accuracy that is as good as chance."""
    return 1 / len(data.classes) + 0.015


def attacked(design: Design, case: Case, data: Dataset, who: Attacker, most: int, seed: int, out: Path) -> Campaign:
    """One attack on validation samples, judged by others, as many of each class; taken from `out` if made before."""
    bits = "".join(map(str, who.bits)) or "all"
    path = out / f"attack-{who.knowledge}-{bits}-{seed}-{design.graph.digest[:12]}.json"
    if path.is_file():
        return from_plain(Campaign, json.loads(path.read_text()), str(path))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.validation))
    labels, share = data.validation.labels[order], case.judged // len(data.classes)
    others = np.arange(len(order)) >= case.batch
    even = np.concatenate([np.flatnonzero(others & (labels == c))[:share] for c in range(len(data.classes))])
    batch, judged = (data.validation.take(order[part]) for part in (slice(case.batch), even))
    found = attack(design.graph, who, batch, judged, Effort(most=most, stop=stop_at(data)), rng)
    write_atomic(path, json.dumps(to_plain(found)))
    return found


def print_flips(design: Design, bench: Bench, campaigns: Sequence[Sequence[Campaign]]) -> None:
    """Flips to chance on the judging samples, and test accuracy after the first seed's."""
    stop = stop_at(bench.data)
    least = least_flips([c for row in campaigns for c in row], stop)
    print(f"| attacker | flips to at most {stop:.1%}, by seed | least, of it and weaker ones | test accuracy then |")
    print("|---|---|---|---|")
    for row in campaigns:
        who = row[0].attacker
        counts = ", ".join("—" if (n := c.needed(stop)) is None else str(n) for c in row)
        after = bench.accuracy(flipped(design.graph, row[0].flips), bench.data.test)
        bits = f"bits {min(who.bits)}…{max(who.bits)}" if who.bits else "all bits"
        print(f"| {who.knowledge}, {bits} | {counts} | {least[who] or '—'} | {after:.1%} |", flush=True)


class Checked:
    """The compiled check, over tables in memory that can be written."""

    def __init__(self, folder: Path, tables: Sequence[Array]) -> None:
        self.contents = groups(tables)
        self.tables = [table.copy() for table in tables]
        self.library = ctypes.CDLL(str(Native.build(folder).made.path))
        region = np.dtype([("at", "u8"), ("count", "i4")], align=True)
        regions = np.array([(table.ctypes.data, len(table)) for table in self.tables], region)
        self.kept = regions, signatures(self.contents), factors()
        addresses = [array.ctypes.data for array in self.kept]
        self.checked = np.zeros(1, [("pointers", "u8", 3), ("counts", "i4", 2)])
        self.checked["pointers"], self.checked["counts"] = addresses, (len(self.contents), 1)

    def first_bad(self) -> int:
        """The group that `cl_check` finds, −1 if it finds none."""
        return self.library.cl_check(ctypes.c_void_p(self.checked.ctypes.data), 0, len(self.contents))

    def misses(self, sets: Iterable[Sequence[tuple[int, int, int]]]) -> tuple[int, int]:
        """How many sets of flips (table, word, bit) there are, and how many are not found."""
        count = missed = 0
        for flips in sets:
            for table, word, bit in flips:
                self.tables[table][word] ^= np.uint32(1 << bit)
            count, missed = count + 1, missed + (self.first_bad() < 0)
            for table, word, bit in flips:
                self.tables[table][word] ^= np.uint32(1 << bit)
        assert self.first_bad() < 0
        return count, missed


def random_sets(tables: Sequence[Array], close: bool) -> Iterable[list[tuple[int, int, int]]]:
    """Sets of 1…10 different bits of all tables, or all from one group."""
    chance = Random(int(close))
    ends = np.cumsum([32 * len(table) for table in tables])
    for trial in range(RANDOM_SETS):
        room = 32 * GROUP_WORDS if close else int(ends[-1])
        first = chance.randrange(int(ends[-1]) - room + 1)
        found: list[tuple[int, int, int]] = []
        for place in chance.sample(range(first, first + room), trial % 10 + 1):
            table = int(np.searchsorted(ends, place, side="right"))
            word, bit = divmod(place - (int(ends[table - 1]) if table else 0), 32)
            found.append((table, word, bit))
        yield found


def stored(design: Design, flips: Sequence[Flip], before: Sequence[Array]) -> list[tuple[int, int, int]]:
    """The bits of the tables in flash that flips of codes are."""
    assert design.plan is not None
    graph = replace(design.graph, constants={**design.graph.constants, **flipped_codes(design.graph, flips)})
    weights = {s.name: words_of(s.fields["weight"]) for s in steps_of(graph, design.plan)[0] if "weight" in s.fields}
    steps = steps_of(design.graph, design.plan)[0]
    names = [(step.name, field) for step in steps for field, value in step.fields.items() if len(words_of(value))]
    found: list[tuple[int, int, int]] = []
    for table, (name, field) in enumerate(names):
        if field == "weight":
            differing = weights[name] ^ before[table]
            for word in np.flatnonzero(differing).tolist():
                found += [(table, word, bit) for bit in range(32) if int(differing[word]) >> bit & 1]
    return found


def print_detection(design: Design, bench: Bench, campaigns: Sequence[Campaign]) -> None:
    assert design.plan is not None
    tables = checked_tables(steps_of(design.graph, design.plan)[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "firmware"
        shape = design.graph.types[design.graph.inputs[0]].shape
        emit(ProtectWeights(inferences=1)(design, bench), folder, np.zeros((1, *shape), np.float32))
        check = Checked(folder, tables)
        found = [stored(design, c.flips[:n], tables) for c in campaigns for n in range(1, min(10, len(c.flips)) + 1)]
        print("\n| sets of flips | how many | not found |\n|---|---|---|")
        for title, sets in (
            ("of the attacks, the first 1…10", found),
            ("random, 1…10 of all constants", random_sets(tables, close=False)),
            ("random, 1…10 within 64 words", random_sets(tables, close=True)),
        ):
            count, missed = check.misses(sets)
            print(f"| {title} | {count} | {missed} |", flush=True)


def print_costs(design: Design, bench: Bench) -> None:
    """Exact instruction counts, the most of all slices; bytes as linked."""
    x = bench.data.validation.real(slice(0, 1))
    print("\n| core | all seen in | instructions | more | flash, B | more | RAM more, B | stack more, B |")
    print("|---|---|---|---|---|---|---|---|")
    for core in CORES:
        plain = emulated(design, x, core, 1)
        for latency in (0, *LATENCIES):
            check = ProtectWeights(inferences=max(latency, 1))
            ran = emulated(check(design, bench), x, core, latency) if latency else plain
            count, base = int(ran.instructions.max()), int(plain.instructions.max())
            flash, before = ran.image.flash_bytes, plain.image.flash_bytes
            ram = ran.image.ram_bytes - plain.image.ram_bytes
            stack = ran.image.stack_bound().bytes - plain.image.stack_bound().bytes
            print(
                f"| {core} | {latency or 'no check'} | {count} | {count / base - 1:.2%} | {flash} "
                f"| {flash / before - 1:.2%} | {ram} | {stack} |",
                flush=True,
            )
        restoring = emulated(ProtectWeights(inferences=8, parity=8)(design, bench), x, core, 1)
        more = restoring.image.flash_bytes / plain.image.flash_bytes - 1
        print(f"| {core} | 8, with 8 rows of parity | | | {restoring.image.flash_bytes} | {more:.2%} | | |", flush=True)


def emulated(design: Design, x: Array, core: Core, times: int) -> Emulation:
    """That many inferences one after the other, each going on with the check where the last one ended."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "firmware"
        emit(design, folder, x)
        codes = np.repeat(reference.encode_input(design.graph, x), times, axis=0)
        return Image.link(folder, core).run(codes, poison=None)


if __name__ == "__main__":
    main()
