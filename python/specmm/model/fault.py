"""A fault from entry to end: speculative attempt, classic passes, counting (arch/x86/mm/fault.c)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .memory import Fault, Pass
from .outcomes import VM_FAULT_ERROR, Abort, FaultOutcome, VmFault
from .page import PAGE_SHIFT
from .page_table import PageTable
from .vma import VmaList


@dataclass
class FaultHandler:
    """do_user_addr_fault for one address space."""

    vmas: VmaList
    page_table: PageTable
    events: Counter[str]
    speculates: bool
    fault_around_pages: int

    def handle(self, address: int, *, write: bool) -> tuple[FaultOutcome, OSError | None]:
        """One fault, and the error behind its SIGBUS."""
        self.events["pgfault"] += 1
        abort = None
        if self.speculates:
            attempt = self.speculative_attempt(address, write=write)
            if attempt.abort is None:
                self.events["min_flt"] += 1
                return FaultOutcome(attempt.result, None, False), None
            abort = attempt.abort
        return self.classic(address, abort, write=write)

    # --- without the mmap lock

    def speculative_attempt(self, address: int, *, write: bool) -> Pass:
        """One counted attempt. An abort drops the credit, even for entries that fault-around has set."""
        self.events["spf_attempt"] += 1
        attempt = self.speculative_pass(address, write=write)
        if attempt.abort is None:
            self.events["spf_commit"] += 1
            self.credit(address, attempt.published)
        else:
            self.events["spf_abort"] += 1
            self.events[f"spf_abort_{attempt.abort.value}"] += 1
        return attempt

    def speculative_pass(self, address: int, *, write: bool) -> Pass:
        """Aborts on anything that is not plainly in order: only the classic path judges."""
        vma = self.vmas.find(address)
        if vma is None:
            return Pass(VmFault.RETRY, Abort.UNMAPPED)
        if write and vma.flags.shared:  # vma_can_speculate
            return Pass(VmFault.RETRY, Abort.NO_SPECULATE)
        if write and not vma.flags.write:
            return Pass(VmFault.RETRY, Abort.ACCESS_ERROR)
        number = address >> PAGE_SHIFT
        missing = self.page_table.missing(number)
        if missing is not None:
            return Pass(VmFault.RETRY, missing)
        fault = Fault(vma, number, write, True, False, self.fault_around_pages)
        return fault.handle_pte_fault()

    # --- under the mmap lock

    def classic(
        self, address: int, abort: Abort | None, *, write: bool
    ) -> tuple[FaultOutcome, OSError | None]:
        """From scratch, and again with TRIED as long as the result is RETRY."""
        published = 0
        missed = tried = False
        earlier = VmFault(0)
        while True:
            one = self.classic_pass(address, write=write, tried=tried)
            published += one.published
            missed = missed or one.missed
            result = one.result | earlier & VmFault.MAJOR
            if not one.result & VmFault.RETRY:
                break
            earlier, tried = result, True

        # A fault that missed was counted as a miss, and must not count as a hit as well.
        if not missed:
            self.credit(address, published)

        # mm_account_fault: a fault that was retried has waited for something.
        major = False
        if not result & VM_FAULT_ERROR:
            major = tried or bool(result & VmFault.MAJOR)
            self.events["maj_flt" if major else "min_flt"] += 1
        return FaultOutcome(result, abort, major), one.error

    def classic_pass(self, address: int, *, write: bool, tried: bool) -> Pass:
        """find_vma, access_error, __handle_mm_fault."""
        self.events["mmap_lock_read"] += 1
        vma = self.vmas.find(address)
        if vma is None or (write and not vma.flags.write):
            return Pass(VmFault.SIGSEGV)
        number = address >> PAGE_SHIFT
        one = Fault(vma, number, write, False, tried, self.fault_around_pages).handle_pte_fault()
        self.events["pgmajfault"] += one.missed
        return one

    def credit(self, address: int, published: int) -> None:
        """Credits mmap_miss exactly once, after the entries are set."""
        vma = self.vmas.find(address)
        if vma is not None and published:
            vma.file.f_ra.credit(published, rand=vma.flags.rand_read)
