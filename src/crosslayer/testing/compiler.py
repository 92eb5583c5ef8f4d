"""The compiler on single files: does it complain?"""

import os
import subprocess
from pathlib import Path

from crosslayer.execute.toolchain import default_cache, zig

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wvla", "-Werror")
"""The warnings under which kernels and firmware compile without a word."""


def compile_strictly(folder: Path, *sources: str, flags: tuple[str, ...] = (), language: str = "c99") -> Path:
    """An object file of one of the files in `folder`, or a shared library of several, made with all warnings as errors.
    With the flag `-S` its assembly.

    `language` is what `-std` says; `c++…` compiles as C++. A complaint becomes the `AssertionError`.
    """
    mode = "c++" if language.startswith("c++") else "cc"
    command = [mode if word == "cc" else word for word in zig().command]
    kind, product = (("-c",), "unit.o") if len(sources) == 1 else (("-shared", "-fPIC", "-mcpu=native"), "units.so")
    if "-S" in flags:
        kind, product = ("-Wno-unused-command-line-argument",), "unit.s"  # zig adds a -c
    done = subprocess.run(
        (*command, f"-std={language}", *STRICT, "-fno-sanitize=undefined", *flags, *kind, "-o", product, *sources),
        cwd=folder,
        env={"ZIG_GLOBAL_CACHE_DIR": str(default_cache() / "zig"), **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{', '.join(sources)}: the compiler complains:\n{done.stderr[:2000]}"
    return folder / product
