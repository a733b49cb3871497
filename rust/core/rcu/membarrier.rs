//! The asymmetric fence: light where readers pass, heavy where a grace period begins.
//!
//! With `membarrier(2)` the light side is a compiler fence and the heavy side makes every running thread of the process
//! execute a full fence. Without it both sides are full fences. The choice is made once, before the first reader.
//! No argument here pairs light with light, or light with a plain fence.

#[cfg(not(any(specmm_loom, specmm_shuttle)))]
mod imp {
    use crate::sync::{AtomicU32, OnceLock, Ordering, PerProcess, fence, light_barrier};
    use rustix::thread::{MembarrierCommand, membarrier};

    /// Registration is per process: a forked child chooses again.
    static CHOSEN: PerProcess<OnceLock<bool>> = PerProcess::new(OnceLock::new);
    /// The choice once more, for the reader's path: one relaxed load.
    static EXPEDITED: AtomicU32 = AtomicU32::new(0);

    /// Chooses; every thread passes here before its first section.
    pub(crate) fn choose() {
        CHOSEN.get().get_or_init(|| {
            // The environment variable is for tests of the other choice.
            let expedited = std::env::var_os("SPECMM_NO_MEMBARRIER").is_none()
                && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
                && membarrier(MembarrierCommand::PrivateExpedited).is_ok();
            EXPEDITED.store(u32::from(expedited), Ordering::Relaxed);
            expedited
        });
    }

    #[inline]
    pub(crate) fn light() {
        // Relaxed: this thread passed `choose`, whose OnceLock ordered the store before.
        if EXPEDITED.load(Ordering::Relaxed) == 1 {
            light_barrier();
        } else {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn heavy() {
        choose();
        if EXPEDITED.load(Ordering::Relaxed) == 1 {
            // The registration above makes a failure impossible short of a broken kernel; a reader could then be missed,
            // so going on is not an option.
            membarrier(MembarrierCommand::PrivateExpedited).expect("membarrier worked when it was chosen");
        } else {
            fence(Ordering::SeqCst);
        }
    }
}

#[cfg(any(specmm_loom, specmm_shuttle))]
mod imp {
    use crate::sync::ordered_fence;

    pub(crate) fn choose() {}
    pub(crate) fn light() {
        ordered_fence!("rcu.light", SeqCst);
    }
    pub(crate) fn heavy() {
        ordered_fence!("rcu.heavy", SeqCst);
    }
}

pub(super) use imp::{choose, heavy, light};
