//! The workloads, through the public interface: what callers of `workload::run` rely on.
#![cfg(all(feature = "workload", not(any(specmm_loom, specmm_shuttle))))]
#![allow(missing_docs, reason = "a test suite")]

use specmm::workload::{Plan, Rate, Row, Workload, run};
use specmm::{Error, Locking};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A file that is deleted with the test.
struct Data(PathBuf);

impl Data {
    fn new(name: &str, size: usize) -> Self {
        let path = std::env::temp_dir().join(format!("specmm-workload-{name}-{}", std::process::id()));
        std::fs::write(&path, (0..size).map(|i| (i / 5 % 251) as u8).collect::<Vec<_>>()).unwrap();
        Self(path)
    }

    fn plan(&self) -> Plan {
        Plan {
            path: self.0.clone(),
            workload: Workload::FaultVsMmap,
            threads: 2,
            rates: vec![Rate::PerSecond(0), Rate::PerSecond(500)],
            rows: Row::all(),
            seconds: 0.2,
            rounds: 2,
            length: None,
            capacity: None,
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn every_workload_faults_in_every_row_at_every_rate() {
    let data = Data::new("grid", 3 << 20);
    for &workload in Workload::ALL {
        let plan = Plan { workload, ..data.plan() };
        let report = run(&plan, &mut |_| true).unwrap().unwrap();
        assert_eq!(report.runs.len(), 6, "{workload}");
        for run in &report.runs {
            assert!(run.faults() > 0, "{workload} {run:?}");
            assert_eq!(run.rounds.len(), 2);
            let has_writer = run.rate != Rate::PerSecond(0);
            assert_eq!(run.rounds.iter().all(|round| round.pairs > 0), has_writer, "{workload} {run:?}");
            match run.row {
                Row::Kernel => assert_eq!(run.speculative_share(), None),
                Row::Specmm(Locking::MmapLock) => assert_eq!(run.event("spf_attempt"), 0),
                Row::Specmm(Locking::Speculative) => {
                    assert!(run.event("spf_commit") > 0);
                    assert_eq!(run.event("spf_attempt"), run.event("spf_commit") + run.event("spf_abort"));
                }
            }
        }
    }
}

#[test]
fn a_touch_after_a_zap_is_one_fault() {
    let data = Data::new("touch", 3 << 20);
    let plan = Plan { rows: vec![Row::Specmm(Locking::Speculative)], ..data.plan() };
    let report = run(&plan, &mut |_| true).unwrap().unwrap();
    for round in report.runs.iter().flat_map(|run| &run.rounds) {
        assert_eq!(round.faults, round.touches);
    }
}

#[test]
fn it_stops_when_told() {
    let data = Data::new("stop", 1 << 20);
    let plan = Plan { seconds: 600.0, ..data.plan() };
    let began = Instant::now();
    let report = run(&plan, &mut |_| began.elapsed() < Duration::from_millis(300)).unwrap();
    assert!(report.is_none());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_file_that_shrinks_is_an_error_in_every_row() {
    for row in Row::all() {
        let data = Data::new(&format!("shrink-{row}"), 1 << 20);
        let plan = Plan { seconds: 600.0, rows: vec![row], ..data.plan() };
        let plan = if row == Row::Kernel { plan } else { Plan { seconds: 4.0, rounds: 20, ..plan } };
        let began = Instant::now();
        let error = run(&plan, &mut |_| {
            if began.elapsed() > Duration::from_millis(200) {
                std::fs::File::options().write(true).open(&data.0).unwrap().set_len(5000).unwrap();
            }
            true
        })
        .unwrap_err();
        assert!(matches!(error, Error::Bus { size: 5000, .. }), "{row}: {error}");
    }
}

#[test]
fn a_plan_that_cannot_work_is_refused_with_the_value() {
    let data = Data::new("refused", 1 << 20);
    let refused = |plan: Plan, value: &str| {
        let error = run(&plan, &mut |_| true).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        assert!(error.to_string().contains(value), "{error}");
    };
    refused(Plan { threads: 0, ..data.plan() }, "threads 0");
    refused(Plan { seconds: -1.0, ..data.plan() }, "seconds -1");
    refused(Plan { capacity: Some(4096), ..data.plan() }, "4096");
    refused(Plan { length: Some(0), ..data.plan() }, "length 0");
    refused(Plan { path: std::env::temp_dir(), ..data.plan() }, "not a regular file");
    assert!("often".parse::<Rate>().unwrap_err().to_string().contains("often"));
    assert!("vma".parse::<Row>().unwrap_err().to_string().contains("vma"));
    let empty = Data::new("empty", 0);
    refused(empty.plan(), "empty");
    assert!(matches!(
        run(&Plan { path: "/no/such".into(), ..data.plan() }, &mut |_| true),
        Err(Error::Io(_))
    ));
}
