"""Instructions of each part of the kernels, measured on emulated cores and written to `kernels/counts.csv`.

The units are compiled once for a core and a rounding rule, and which of their instructions run depends on geometry
alone. So a count is linear in how often the parts run (`kernels/trace.py`). Random steps without meaning are run and
the equations solved in integers; further steps check them. Kernels with masks, which decide what runs as geometry
does, are measured after all others, whose costs are then known. Rerun after any change of the kernels or the compiler:

    python benchmarks/counts.py --write

or, where only kernels with masks changed, `--write --sparse`.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from crosslayer.core.fixed import Rounding
from crosslayer.core.quant import Array
from crosslayer.core.target import Core
from crosslayer.emit.literals import array
from crosslayer.execute.emulate import Emulation, Image
from crosslayer.execute.toolchain import zig
from crosslayer.kernels.add_table import AddTable
from crosslayer.kernels.call import Kernel, Rows
from crosslayer.kernels.conv_sparse import ConvSparse
from crosslayer.kernels.conv_tile import ConvTile
from crosslayer.kernels.counts import LARGEST_TABLE, measured
from crosslayer.kernels.dense_quad import DenseQuad
from crosslayer.kernels.dense_sparse import DenseSparse
from crosslayer.kernels.depthwise_quad import DepthwiseQuad
from crosslayer.kernels.pool_quad import PoolQuad
from crosslayer.kernels.softmax_table import SoftmaxTable
from crosslayer.kernels.sparse import compressed
from crosslayer.kernels.steps import Step, most_rows, most_taps
from crosslayer.kernels.trace import run_ends, trace

RUNS = [
    (core, rounding)
    for core in (Core.CORTEX_M4, Core.CORTEX_M7, Core.CORTEX_M33, Core.CORTEX_M0, Core.RV32)
    for rounding in (Rounding.DOUBLE, Rounding.FLOAT)
    if rounding is Rounding.DOUBLE or core not in {Core.CORTEX_M0, Core.RV32}  # floats in software: counts of the data
]
ZEROS = 40_000
ARENA = 40_000
POINTERS = {
    "conv_tile": ("padding", "weight", "records"),
    "depthwise_quad": ("padding", "weight", "records"),
    "dense_quad": ("weight", "bias", "requant"),
    "add_table": ("terms",),
    "pool_quad": (),
    "softmax_table": ("powers",),
    "conv_sparse": ("padding", "weight", "bias", "requant"),
    "dense_sparse": ("weight", "bias", "requant"),
}
"""Their tables but masks; all that else decides their work are numbers."""
KINDS = {
    "conv_tile": "conv",
    "depthwise_quad": "depthwise",
    "dense_quad": "dense",
    "add_table": "sum",
    "pool_quad": "pool",
    "softmax_table": "softmax",
    "conv_sparse": "conv_sparse",
    "dense_sparse": "dense_sparse",
}


Draw = Callable[[np.random.Generator, int], "Model"]
"""A random model of about so many steps."""


class Model:
    """Random steps and the heights of their values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.steps: list[Step] = []
        self.heights: list[int] = []

    def value(self, height: int) -> int:
        self.heights.append(height)
        return len(self.heights) - 1

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def size(self) -> int:
        """Of a loop; half of them short, where loops differ most."""
        return self.number(1, 9) if self.rng.random() < 0.5 else self.number(10, 40)

    def windows(self, most: int) -> dict[str, int]:
        """Geometry along a row."""
        while True:
            kernel, apart, step = self.number(1, most), self.number(1, 2), self.number(1, 3)
            left, right, in_w = self.number(0, kernel - 1), self.number(0, kernel - 1), self.number(1, 12)
            out_w = (in_w + left + right - (kernel - 1) * apart - 1) // step + 1
            if out_w >= 1 and all(_sees(ox * step - left, kernel, apart, in_w) for ox in range(out_w)):
                return {
                    "in_w": in_w,
                    "out_w": out_w,
                    "kernel_w": kernel,
                    "stride_w": step,
                    "dilation_w": apart,
                    "pad_left": left,
                }

    def rows(self, most: int, height: int | None = None) -> tuple[Rows, int]:
        """Rows of windows and the height of the input."""
        while True:
            kernel, apart, step = self.number(1, most), self.number(1, 2), self.number(1, 2)
            above, below = self.number(0, kernel - 1), self.number(0, kernel - 1)
            high = self.number(1, 9) if height is None else height
            count = (high + above + below - (kernel - 1) * apart - 1) // step + 1
            if count >= 1 and all(_sees(row * step - above, kernel, apart, high) for row in range(count)):
                return Rows(count=count, taps=kernel, stride=step, dilation=apart, pad=above), high

    def add(
        self, unit: Kernel, kernel: str, fields: Mapping[str, int], rows: Rows, inputs: Sequence[int], **masks: Array
    ) -> int:
        output = self.value(rows.count)
        self.steps.append(
            Step(
                name=f"s{len(self.steps)}",
                kernel=kernel,
                unit=unit,
                fields={**fields, **masks},
                rows=rows,
                inputs=tuple(inputs),
                output=output,
                group=1,
                taps=rows.taps * fields["kernel_w"] if kernel == "depthwise_quad" else 1,
            )
        )
        return output

    def convolution(self, source: int | None) -> tuple[dict[str, int], Rows, int]:
        """Geometry, rows, and where the input lies."""
        rows, height = self.rows(4, None if source is None else self.heights[source])
        fields = self.windows(5)
        in_c = self.number(1, 6) * (4 if self.rng.random() < 0.5 else 1) if self.rng.random() < 0.7 else self.size()
        if self.rng.random() < 0.3:
            fields |= {"kernel_w": 1, "pad_left": 0, "dilation_w": 1}
            fields["out_w"] = (fields["in_w"] - 1) // fields["stride_w"] + 1
            rows = replace(rows, taps=1, pad=0, count=(height - 1) // rows.stride + 1)
        fields |= {"zero_out": 0, "in_c": in_c, "out_c": self.number(2, 9), "kernel_h": rows.taps}
        return fields, rows, self.value(height) if source is None else source

    def conv(self, source: int | None = None) -> int:
        fields, rows, x = self.convolution(source)
        fields["blocks"] = -(-fields["in_c"] * fields["kernel_w"] * rows.taps // 4)
        return self.add(ConvTile(), "conv_tile", fields, rows, [x])

    def depthwise(self, source: int | None = None, *, keep: bool = False) -> int:
        rows, height = self.rows(4, None if source is None else self.heights[source])
        if keep:  # the height
            taps, apart = self.number(1, 3), self.number(1, 2)
            rows = Rows(count=height, taps=taps, dilation=apart, pad=self.number(0, (taps - 1) * apart))
        fields = self.windows(5) | {"zero_out": 0, "channels": self.number(4, 23), "kernel_h": rows.taps}
        return self.add(
            DepthwiseQuad(), "depthwise_quad", fields, rows, [self.value(height) if source is None else source]
        )

    def dense(self) -> int:
        fields = {
            "blocks": self.size(),
            "size_out": self.number(4, 23),
            "zero_out": 0,
            "per_channel": self.number(0, 1),
        }
        return self.add(DenseQuad(), "dense_quad", fields, Rows(count=1), [self.value(1)])

    def sum(self, sources: Sequence[int] = ()) -> int:
        count = self.heights[sources[0]] if sources else self.number(1, 4)
        fields = {"count": self.size(), "swap": self.number(0, 1), "mult": 0, "offset": 0, "shift": 0}
        inputs = [*sources, *(self.value(count) for _ in range(2 - len(sources)))]
        return self.add(AddTable(), "add_table", fields, Rows(count=count), inputs)

    def pool(self, source: int | None = None) -> int:
        rows, height = self.rows(6, None if source is None else self.heights[source])
        whole = self.rng.random() < 0.3 and source is None
        fields = self.windows(6) | {"channels": self.number(4, 13), "kernel_h": rows.taps, "largest": self.number(0, 1)}
        if whole:
            rows = Rows(count=1)
            height = fields["kernel_h"]
        fields |= {"whole": int(whole)}
        return self.add(PoolQuad(), "pool_quad", fields, rows, [self.value(height) if source is None else source])

    def softmax(self) -> int:
        fields = {"rows": self.number(1, 4), "depth": self.size(), "last": 255}
        return self.add(SoftmaxTable(), "softmax_table", fields, Rows(count=1), [self.value(1)])

    def zeros(self, outputs: int, inputs: int) -> tuple[dict[str, int], dict[str, Array]]:
        """Numbers and masks of weights some of which are zero, with words of zeros alone."""
        there = self.rng.random((outputs, inputs)) < self.rng.random()
        there[:, : 32 * self.number(0, 3)] &= self.rng.random((outputs, 1)) < 0.5
        numbers, tables = compressed(there.astype(np.int8))
        return numbers, {name: tables[name] for name in ("mask", "stored")}

    def conv_sparse(self) -> int:
        fields, rows, x = self.convolution(None)
        numbers, masks = self.zeros(fields["out_c"], fields["in_c"] * fields["kernel_w"] * rows.taps)
        fields |= {"per_channel": self.number(0, 1), **numbers}
        return self.add(ConvSparse(), "conv_sparse", fields, rows, [x], **masks)

    def dense_sparse(self) -> int:
        outputs = self.size()
        numbers, masks = self.zeros(outputs, self.number(1, 200))
        fields = {"size_out": outputs, "zero_out": 0, "per_channel": self.number(0, 1), **numbers}
        return self.add(DenseSparse(), "dense_sparse", fields, Rows(count=1), [self.value(1)], **masks)

    def group(self) -> None:
        """Some steps that run together."""
        first, heights = len(self.steps), list(self.heights)
        source = self.value(self.number(3, 20))
        for _ in range(self.number(2, 4)):
            draw = self.rng.random()
            if draw < 0.4:
                both = [source, self.depthwise(source, keep=True)]
                if draw < 0.2:
                    both[0] = self.depthwise(source, keep=True)
                source = self.sum(both if self.rng.random() < 0.5 else both[::-1])
            else:
                source = (self.conv, self.depthwise, self.pool)[self.number(0, 2)](source)
        steps = self.steps[first:]
        if any(step.rows.count > 60_000 for step in steps) or not self._ends(first):
            del self.steps[first:]
            self.heights[:] = heights
            return
        self.steps[first] = replace(self.steps[first], group=len(self.steps) - first)

    def _ends(self, first: int) -> bool:
        """Whether all rows get made."""
        chain = [replace(self.steps[first], group=len(self.steps) - first), *self.steps[first + 1 :]]
        return run_ends(chain, self.heights)


def _sees(first: int, kernel: int, apart: int, size: int) -> bool:
    """Whether a window sees more than padding."""
    return any(0 <= first + tap * apart < size for tap in range(kernel))


def random_model(rng: np.random.Generator, steps: int, *, groups: bool = True) -> Model:
    """About that many steps of all kernels."""
    model = Model(rng)
    if rng.random() < 0.5:
        model.group()
    kinds = (
        model.conv,
        model.conv,
        model.depthwise,
        model.depthwise,
        model.dense,
        model.sum,
        model.pool,
        model.softmax,
    )
    while len(model.steps) < steps:
        kinds[int(rng.integers(len(kinds)))]()
        if rng.random() < 0.15:
            model.group()
    return model


def random_sparse(rng: np.random.Generator, steps: int) -> Model:
    """So many steps of the kernels with masks."""
    model = Model(rng)
    for _ in range(steps):
        (model.conv_sparse, model.dense_sparse)[int(rng.integers(2))]()
    return model


def write(model: Model, rounding: Rounding, folder: Path, *, rows: int = 0, taps: int = 0) -> None:
    """A firmware folder of the model, all its tables zero; for at least so many `rows` and `taps`."""
    lines = [
        *('#include "model.h"', "#include <stddef.h>", '#include "kernels/group.h"'),
        *(f'#include "kernels/{kernel}.h"' for kernel in POINTERS),
        f"const int32_t zeros[{ZEROS}] = {{0}};",
        f"const int32_t powers[256] = {{{', '.join(['0x40000000'] * 256)}}};",
    ]
    table = []
    for step in model.steps:
        fields = {**step.fields, **dict.fromkeys(POINTERS[step.kernel], "(const void *)zeros")}
        if "powers" in fields:
            fields["powers"] = "powers"
        for name in ("mask", "stored"):
            masks = step.fields.get(name)
            if isinstance(masks, np.ndarray):
                lines.append(array(f"{step.name}_{name}", masks))
                fields[name] = f"{step.name}_{name}"
        given = ", ".join(f".{name} = {value}" for name, value in fields.items())
        lines.append(f"static const struct {step.kernel} {step.name} = {{{given}}};")
        lines.append(f"static const uint16_t {step.name}_inputs[] = {{{', '.join(map(str, step.inputs))}}};")
        one = step.rows
        table.append(
            f"{{cl_{step.kernel}, &{step.name}, {step.name}_inputs, 0, {step.output}, {len(step.inputs)}, {one.count}, "
            f"{one.taps}, {one.stride}, {one.dilation}, {one.pad}, {step.group}}}"
        )
    values = ", ".join(f"{{0, 0, {height}, {height}, 0}}" for height in model.heights)
    grouped = "cl_run_group" if any(step.group > 1 for step in model.steps) else "NULL"
    made = ARENA - 2 * len(model.heights) - 16
    lines += [
        f"static const cl_value values[] = {{{values}}};",
        f"static const cl_step steps[] = {{{', '.join(table)}}};",
        f"static const cl_model model = {{steps, values, {grouped}, {len(table)}, {len(model.heights)}, {made}}};",
        _CALLS,
    ]
    rules = {
        "CL_RULE_FLOAT": int(rounding is Rounding.FLOAT),
        "CL_DENSE_SINGLE": 0,
        "CL_MOST_ROWS": max(rows, most_rows(model.steps)),
        "CL_MOST_TAPS": max(taps, most_taps(model.steps)),
    }
    (folder / "kernels").mkdir(parents=True)
    (folder / "model.h").write_text(_HEADER)
    (folder / "model.c").write_text("\n".join(lines))
    (folder / "kernels" / "rules.h").write_text("".join(f"#define {name} {value}\n" for name, value in rules.items()))
    for file in resources.files("crosslayer.kernels").iterdir():
        if file.name.endswith((".c", ".h")):
            (folder / "kernels" / file.name).write_text(file.read_text())


_HEADER = f"""#include <stdint.h>
#define MODEL_ARENA_BYTES {ARENA}
#define MODEL_ARENA_ALIGN 16
#define MODEL_INPUT_BYTES 1
#define MODEL_OUTPUT_BYTES 1
void *model_input(void *arena);
const void *model_output(const void *arena);
int model_run(void *arena);
"""
_CALLS = """
void *model_input(void *arena) { return arena; }
const void *model_output(const void *arena) { return arena; }
int model_run(void *arena)
{
    if (arena == NULL || (uintptr_t)arena % MODEL_ARENA_ALIGN != 0) {
        return -1;
    }
    cl_run(&model, 0, arena);
    return 0;
}
"""


def ran(model: Model, core: Core, rounding: Rounding, tables: int) -> Emulation:
    """The model on an emulated core; for at least so many rows and taps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "firmware"
        write(model, rounding, folder, rows=tables, taps=tables)
        return Image.link(folder, core).run(np.zeros((1, 1), np.int8))


def equations(model: Model, run: Emulation) -> tuple[list[dict[str, int]], list[int], list[str]]:
    """What happens in each step, what it takes, and its kernel."""
    tallies = trace(model.steps, model.heights)
    taken = [int(run.instructions[0] - run.by_step.sum()), *(int(n) for n in run.by_step)]
    return [tally.parts() for tally in tallies], taken, ["run", *(step.kernel for step in model.steps)]


def solve(parts: Sequence[Mapping[str, int]], taken: Sequence[int]) -> dict[str, int]:
    """Whole numbers that explain all counts as far as possible: of parts that depend on one another, the first ones."""
    names = list(dict.fromkeys(name for tally in parts for name in tally))
    matrix = np.array([[tally.get(name, 0) for name in names] for tally in parts], float)
    lengths = np.linalg.norm(matrix, axis=0)
    basis: list[np.ndarray] = []
    kept: list[int] = []
    for i in np.flatnonzero(lengths):
        column = matrix[:, i] / lengths[i]
        for _ in range(2):
            if basis:
                q = np.array(basis)
                column = column - q.T @ (q @ column)
        if (length := np.linalg.norm(column)) > 1e-7:
            basis.append(column / length)
            kept.append(int(i))
    found = np.linalg.lstsq(matrix[:, kept], np.array(taken, float), rcond=None)[0]
    costs = dict.fromkeys(names, 0)
    return costs | {names[i]: round(value) for i, value in zip(kept, found, strict=True)}


def misses(
    costs: Mapping[str, int], parts: Sequence[Mapping[str, int]], taken: Sequence[int], kinds: Sequence[str]
) -> dict[str, str]:
    """By kernel: how many steps are not predicted exactly, and by how much at most."""
    found: dict[str, list[int]] = {}
    for tally, count, kind in zip(parts, taken, kinds, strict=True):
        found.setdefault(kind, []).append(abs(count - sum(costs.get(n, 10**9) * v for n, v in tally.items())))
    return {kind: f"{sum(map(bool, off))} of {len(off)}, by {max(off)}" for kind, off in found.items() if any(off)}


def measure(
    core: Core, rounding: Rounding, draw: Draw, models: int, steps: int, seed: int, tables: int
) -> tuple[list[Mapping[str, int]], list[int], list[str]]:
    """Equations of random models."""
    rng = np.random.default_rng(seed)
    parts: list[Mapping[str, int]] = []
    taken: list[int] = []
    kinds: list[str] = []
    for _ in range(models):
        model = draw(rng, steps)
        tallies, counts, names = equations(model, ran(model, core, rounding, tables))
        parts += tallies
        taken += counts
        kinds += names
    return parts, taken, kinds


def rest(
    known: Mapping[str, int], parts: Sequence[Mapping[str, int]], taken: Sequence[int]
) -> tuple[list[dict[str, int]], list[int]]:
    """The equations without what is known."""
    others = [{name: times for name, times in tally.items() if name not in known} for tally in parts]
    spent = [sum(known.get(name, 0) * times for name, times in tally.items()) for tally in parts]
    return others, [count - less for count, less in zip(taken, spent, strict=True)]


def stacks(core: Core, rounding: Rounding) -> dict[str, int]:
    """Bytes of stack: of each kernel with all that calls it, and what longer tables of rows and taps and groups add."""

    def depth(kernel: str, *, rows: int = 4, taps: int = 4, group: bool = False) -> int:
        model = Model(np.random.default_rng(0))
        while not model.steps or max(model.steps[0].taps, model.steps[0].rows.taps) > 4:
            model = Model(model.rng)
            getattr(model, KINDS[kernel])()
        if group:
            model.steps.append(replace(model.steps[0], name="again"))
            model.steps[0] = replace(model.steps[0], group=2)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "firmware"
            write(model, rounding, folder, rows=rows, taps=taps)
            return Image.link(folder, core).stack_bound().bytes

    found = {f"stack {kernel}": depth(kernel) for kernel in KINDS}
    plain, wide = found["stack add_table"], found["stack depthwise_quad"]
    found["stack group"] = depth("add_table", group=True) - plain
    for more in range(4):
        found[f"stack rows {more}"] = depth("add_table", rows=4 + more) - plain
        found[f"stack taps {more}"] = depth("depthwise_quad", taps=4 + more) - wide
    for more in (depth("add_table", rows=LARGEST_TABLE) - plain, depth("depthwise_quad", taps=LARGEST_TABLE) - wide):
        assert more == 4 * (LARGEST_TABLE - 4), "the stack does not grow by whole tables"
    return found


def solved(
    core: Core, rounding: Rounding, known: Mapping[str, int], draw: Draw, models: int, steps: int
) -> dict[str, int]:
    """What is known, and what each other part of random models takes, checked with models of another seed."""
    start = time.time()
    parts, taken, kinds = measure(core, rounding, draw, models, steps, 0, 1)
    costs = {**known, **solve(*rest(known, parts, taken))}
    missed = (
        misses(costs, parts, taken, kinds),
        misses(costs, *measure(core, rounding, draw, 2, steps, 1, LARGEST_TABLE)),
    )
    print(
        f"{core.value} {rounding.value}: {sum(map(bool, costs.values()))} costs, new ones from {len(taken)} steps; "
        f"missed of these {missed[0] or 'none'}, of others {missed[1] or 'none'}; {time.time() - start:.0f} s",
        flush=True,
    )
    return costs


def main() -> None:
    """Measures, checks and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="also where kernels are not predicted")
    parser.add_argument("--core", action="append", choices=[core.value for core, _ in RUNS])
    parser.add_argument(
        "--sparse", action="store_true", help="measure the kernels with masks alone, keep all other costs"
    )
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    columns: dict[str, dict[str, int]] = {}
    for core, rounding in RUNS:
        if given.core and core.value not in given.core:
            continue
        column = f"{core.value} {rounding.value}"
        known = {name: cost for name, cost in measured()[column].items() if "_sparse" not in name}
        if not given.sparse:
            known = solved(core, rounding, {}, random_model, given.models, given.steps)
        costs = solved(core, rounding, known, random_sparse, -(-given.models // 4), given.steps)
        columns[column] = costs | stacks(core, rounding)
    if given.write:
        names = sorted({name for costs in columns.values() for name in costs})
        with (Path(str(resources.files("crosslayer.kernels"))) / "counts.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["part", *columns])
            table.writerow(["compiler", *(zig().title for _ in columns)])
            table.writerows([name, *(costs.get(name, "") for costs in columns.values())] for name in names)


if __name__ == "__main__":
    main()
