//! A faulting thread: faults its part in, then zaps it and faults it in again until it is told to stop.

use super::latency::{Latencies, Sampler, nanoseconds};
use super::plan::Workload;
use super::space::{Kind, Space};
use crate::error::Result;
use crate::page::PAGE_SIZE;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What one thread works on: a part of a mapping that is its own or shared.
pub(super) struct Part {
    /// Of the file, and of the mapping if that is shared.
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The results of one thread.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Time of the first, cold pass.
    pub(super) cold: Duration,
    /// Touches after the first pass.
    pub(super) touches: u64,
    /// Faults that those caused.
    pub(super) faults: u64,
    /// Time that those took, without zapping.
    pub(super) busy: Duration,
    pub(super) latencies: Latencies,
}

/// One thread.
pub(super) struct Faulter<'a, S: Space> {
    pub(super) space: &'a S,
    /// The mapping that all threads share; without one, each maps its part itself.
    pub(super) common: Option<&'a S::Mapping>,
    pub(super) part: Part,
    pub(super) workload: Workload,
    pub(super) stop: &'a AtomicBool,
    pub(super) clock: u64,
    pub(super) number: usize,
}

impl<S: Space> Faulter<'_, S> {
    /// Runs until told to stop. After the cold pass `ready` waits for the other threads.
    pub(super) fn run(self, ready: impl FnOnce()) -> Result<Done> {
        let mut done = Done::default();
        let own = if self.common.is_none() { Some(self.map()?) } else { None };
        let began = Instant::now();
        // Every page: readahead brings the file in as it does for a program that reads all of it.
        let cold = self.pass(own.as_ref(), PAGE_SIZE as u64, &mut Done::default(), None);
        done.cold = began.elapsed();
        // Even if that failed, so that the other threads do not wait for this one.
        ready();
        cold?;
        self.rounds(own, &mut done)?;
        Ok(done)
    }

    fn rounds(&self, mut own: Option<S::Mapping>, done: &mut Done) -> Result<()> {
        let mut sampler = Sampler::new(self.number as u64);
        let faults_before = self.space.faults_of_this_thread();
        while !self.is_stopped() {
            own = self.renew(own)?;
            let began = Instant::now();
            self.pass(own.as_ref(), self.workload.stride(), done, Some(&mut sampler))?;
            done.busy += began.elapsed();
        }
        done.faults += self.space.faults_of_this_thread() - faults_before;
        if let Some(mapping) = own {
            self.space.unmap(mapping)?;
        }
        Ok(())
    }

    /// Touches the part once.
    fn pass(
        &self,
        own: Option<&S::Mapping>,
        stride: u64,
        done: &mut Done,
        mut sampler: Option<&mut Sampler>,
    ) -> Result<()> {
        let (mapping, start) = match (self.common, own) {
            (Some(common), _) => (common, self.part.offset),
            (None, Some(own)) => (own, 0),
            (None, None) => return Ok(()),
        };
        let write = self.workload.writes();
        let mut at = start;
        while at < start + self.part.length && !self.is_stopped() {
            if sampler.as_mut().is_some_and(|sampler| sampler.is_next()) {
                done.faults += self.timed_touch(mapping, at, &mut done.latencies)?;
            } else {
                done.faults += self.space.touch(mapping, at, write)?;
            }
            done.touches += 1;
            at += stride;
        }
        Ok(())
    }

    /// Records how long a touch takes, if it is a fault: a neighbour's fault, or a thread that shares the slice, may have
    /// been there first.
    fn timed_touch(&self, mapping: &S::Mapping, at: u64, latencies: &mut Latencies) -> Result<u64> {
        let faults_before = self.space.faults_of_this_thread();
        let before = Instant::now();
        let told = self.space.touch(mapping, at, self.workload.writes())?;
        let took = nanoseconds(before);
        if told + self.space.faults_of_this_thread() > faults_before {
            latencies.record(took.saturating_sub(self.clock));
        }
        Ok(told)
    }

    /// Zaps, so that every touch is a fault again.
    fn renew(&self, own: Option<S::Mapping>) -> Result<Option<S::Mapping>> {
        match (self.workload, own, self.common) {
            (Workload::PageFault2, Some(mapping), _) => {
                self.space.unmap(mapping)?;
                self.map().map(Some)
            }
            (_, Some(mapping), _) => {
                self.space.zap(&mapping, 0, self.part.length)?;
                Ok(Some(mapping))
            }
            (_, None, common) => {
                if let Some(common) = common {
                    self.space.zap(common, self.part.offset, self.part.length)?;
                }
                Ok(None)
            }
        }
    }

    fn map(&self) -> Result<S::Mapping> {
        let kind = if self.workload.writes() { Kind::PrivateWrite } else { Kind::SharedRead };
        self.space.map(self.part.offset, self.part.length, kind)
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: the flag only signals the end; joining the thread orders its results.
        self.stop.load(Ordering::Relaxed)
    }
}
