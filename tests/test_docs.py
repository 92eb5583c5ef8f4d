"""The worked example of docs/extend.md, executed: what the page tells to write is all that an operation needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src") / "crosslayer"

PROOF = """
from pathlib import Path
import numpy as np
import crosslayer.core.graph.ops as ops
from crosslayer.core.design import Design, load_design, save_design
from crosslayer.core.graph.build import Builder
from crosslayer.core.quant import affine
from crosslayer.core.target import Core
from crosslayer.emit.firmware import emit
from crosslayer.execute import exact, reference
from crosslayer.execute import torch as bridge
from crosslayer.execute.emulate import emulate
from crosslayer.execute.native import Native
from crosslayer.hardware.catalogue import load_target
from crosslayer.plan.arena import plan_arena

here = Path(ops.__file__)
assert here.is_relative_to(Path.cwd()), here

def network(quant):
    b = Builder()
    x = b.input("x", (3, 3, 4), quant)
    return b.graph(b.add(ops.Maximum(), x, b.add(ops.Tanh(), x, quant=quant)))

graph = network(affine(-2.0, 2.0))
x = np.random.default_rng(0).integers(-128, 128, (50, 3, 3, 4)).astype(np.int8)
truth = reference.run(graph, x)
assert (exact.run(graph, x) == truth).all()
design = Design(graph=graph, target=load_target("stm32l4r5"), plan=plan_arena(graph))
save_design(design, Path("design"))
assert load_design(Path("design")) == design
emit(design, Path("firmware"), x[:2])
assert (Native.build(Path("firmware")).run(x) == truth.view(np.uint8).reshape(50, -1)).all()
assert (emulate(Path("firmware"), Core.CORTEX_M4, x[:5]).outputs == truth[:5].view(np.uint8).reshape(5, -1)).all()
real = network(None)
values = np.random.default_rng(1).normal(size=(2, 3, 3, 4)).astype(np.float32)
assert np.allclose(bridge.run(real, values), reference.run(real, values), atol=1e-6)
print("proved")
"""


def test_the_operation_of_the_extension_guide_works_in_every_executor(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    copy = tmp_path / PACKAGE
    shutil.copytree(ROOT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    touched = dict(re.findall(r"`(src/crosslayer/\S+?\.(?:py|h))`.*?```\w+\n(.*?)```", guide, re.DOTALL))
    assert len(touched) == 3
    for path, text in touched.items():
        if (tmp_path / path).exists():
            _add_row(tmp_path / path, text)
        else:
            (tmp_path / path).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROOF],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "proved\n", done.stderr


def _add_row(path: Path, text: str) -> None:
    """The list with the guide's import and row, where the guide says."""
    line, row = filter(None, text.splitlines())
    name = re.fullmatch(r"OPS = \(\.\.\., (\w+), \.\.\.\)", row)
    assert name
    source = path.read_text(encoding="utf-8")
    source = source.replace("\nOPS: ", f"{line}\n\nOPS: ").replace("    MaxPool,\n", f"    MaxPool,\n    {name[1]},\n")
    path.write_text(source, encoding="utf-8")
