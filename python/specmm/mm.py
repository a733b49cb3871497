"""Address spaces: files mapped and faulted on as Linux does it, with and without the mmap lock.

    import specmm
    import specmm.mm

    with specmm.PageCache("64MiB") as cache, cache.open("data.bin") as file, specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file)
        mm.load(address, 100)
        mm.fault(address).abort  # None: the fault was served without the lock

`Mm` is the address space (`struct mm_struct`). The rest is what its calls return: `VmFault` what a fault came
to, `Abort` why a speculative one gave up, `FaultOutcome` both, `TouchReport` sums of many, and `FilemapFault`
what `File.filemap_fault` says of one page without an address space. Reading files needs none of this.
"""

from specmm._core import Mm
from specmm._types import Abort, FaultOutcome, FilemapFault, TouchReport, VmFault

__all__ = ["Abort", "FaultOutcome", "FilemapFault", "Mm", "TouchReport", "VmFault"]


# Messages and pickles name a class where users find it.
for _class in (Abort, FaultOutcome, FilemapFault, Mm, TouchReport, VmFault):
    _class.__module__ = __name__
del _class
