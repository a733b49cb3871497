//! The writer: the thread that maps and unmaps while others fault, like a program that works on a file piece by piece.
//!
//! Each pair maps a piece of the file elsewhere, uses a few pages of it and unmaps it. Shared mappings, which are read, alternate
//! with private ones, in which some pages are also changed.

use super::plan::Rate;
use super::space::{Kind, Space};
use crate::error::Result;
use crate::page::PAGE_SIZE;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes that a pair maps.
pub const REGION: u64 = 256 << 10;
/// What a pair does, in words.
pub const PAIR: &str = "maps 256 KiB of the file elsewhere, in turn shared to read 4 pages and private to read 2 and \
                        change 2, and unmaps them";
/// If it is late by more than this, the writer restarts its schedule instead of catching up without pause.
const GIVE_UP: Duration = Duration::from_millis(50);

/// The results of the writer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) pairs: u64,
    pub(super) seconds: f64,
}

/// Maps and unmaps at a rate until told to stop.
pub(super) fn write<S: Space>(space: &S, length: u64, rate: Rate, stop: &AtomicBool) -> Result<Done> {
    // To wake on time; without the privilege for that it wakes 50 microseconds late and catches up.
    let _best_effort = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let began = Instant::now();
    let mut pace = Pace::new(rate);
    let mut pairs = 0;
    while pace.wait(stop) {
        pair(space, length, pairs)?;
        pairs += 1;
    }
    Ok(Done { pairs, seconds: began.elapsed().as_secs_f64() })
}

/// Makes pair number `number`.
fn pair<S: Space>(space: &S, length: u64, number: u64) -> Result<()> {
    let region = REGION.min(length);
    let pages = region / PAGE_SIZE as u64;
    // Consecutive pairs work on distant pieces.
    let offset = number.wrapping_mul(37) % (length / region) * region;
    let kind = if number % 2 == 0 { Kind::SharedRead } else { Kind::PrivateWrite };
    let mapping = space.map(offset, region, kind)?;
    for quarter in 0..4 {
        let page = pages * quarter / 4 * PAGE_SIZE as u64;
        space.touch(&mapping, page, false)?;
        if kind == Kind::PrivateWrite && quarter >= 2 {
            space.touch(&mapping, page, true)?;
        }
    }
    space.unmap(mapping)
}

/// Spreads the pairs over time.
struct Pace {
    interval: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(rate: Rate) -> Self {
        let interval = match rate {
            Rate::PerSecond(rate) => Some(Duration::from_secs(1) / rate.max(1)),
            Rate::Max => None,
        };
        Self { interval, next: Instant::now() }
    }

    /// Waits for the time of the next pair. False: the run is over.
    fn wait(&mut self, stop: &AtomicBool) -> bool {
        // Relaxed: the flag only signals the end; joining the threads orders everything else.
        let stopped = || stop.load(Ordering::Relaxed);
        let Some(interval) = self.interval else { return !stopped() };
        self.next += interval;
        loop {
            let now = Instant::now();
            if stopped() {
                return false;
            }
            let Some(left) = self.next.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                if now - self.next > GIVE_UP {
                    self.next = now;
                }
                return true;
            };
            // In pieces, so that a slow writer stops as soon as a fast one.
            std::thread::sleep(left.min(GIVE_UP));
        }
    }
}
