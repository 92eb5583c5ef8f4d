import sys
sys.path.insert(0,'/work/main/benchmarks')
import counts as C, numpy as np, capstone
from crosslayer.core.target import Core
from crosslayer.core.fixed import Rounding
from crosslayer.execute.elf import Elf
from crosslayer.execute.emulate import Image
from pathlib import Path
import tempfile
core=Core(sys.argv[1]); rule=Rounding(sys.argv[2])
m=C.random_model(np.random.default_rng(0),30)
with tempfile.TemporaryDirectory() as n:
    f=Path(n)/'f'; C.write(m,rule,f); im=Image.link(f,core)
elf=Elf.read(im.made.path)
base,code=elf.segments[0]
md=capstone.Cs(capstone.CS_ARCH_ARM,capstone.CS_MODE_THUMB|capstone.CS_MODE_MCLASS) if 'cortex' in core.value else capstone.Cs(capstone.CS_ARCH_RISCV,capstone.CS_MODE_RISCV32|capstone.CS_MODE_RISCVC)
syms=sorted((a&~1,n) for n,a in elf.symbols.items())
for w in sys.argv[3:]:
    a=elf.symbols[w]&~1
    nxt=min([x for x,_ in syms if x>a]+[base+len(code)])
    print('==',w)
    for i in md.disasm(code[a-base:nxt-base],a): print(f"{i.address:x} {i.mnemonic} {i.op_str}")
