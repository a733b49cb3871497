//! The axioms of C11 over candidate executions.

use super::{Op, Ordering, Outcome, Program, WORDS};
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy)]
struct Event {
    thread: usize,
    word: usize,
    reads: bool,
    /// What it writes.
    writes: Option<u32>,
    /// For an exchange: what it expects, and whether this candidate has it succeed.
    expects: Option<(u32, bool)>,
    order: Ordering,
    fence: bool,
}

fn is_acquire(order: Ordering) -> bool {
    matches!(order, Acquire | AcqRel | SeqCst)
}
fn is_release(order: Ordering) -> bool {
    matches!(order, Release | AcqRel | SeqCst)
}

/// A relation over events, as a matrix.
type Relation = Vec<Vec<bool>>;

fn close(relation: &mut Relation) {
    let n = relation.len();
    for middle in 0..n {
        for from in 0..n {
            if relation[from][middle] {
                let beyond = relation[middle].clone();
                for (to, reached) in beyond.into_iter().enumerate() {
                    relation[from][to] |= reached;
                }
            }
        }
    }
}

fn is_acyclic(relation: &Relation) -> bool {
    let mut closed = relation.clone();
    close(&mut closed);
    (0..closed.len()).all(|event| !closed[event][event])
}

/// Every outcome of a consistent execution. A thread stops at an `Unless` that its last read does not satisfy, so the
/// candidates are enumerated for each prefix at which the threads may stop.
pub(super) fn allowed(program: &Program) -> BTreeSet<Outcome> {
    let mut found = BTreeSet::new();
    let mut events: Vec<Event> = (0..WORDS)
        .map(|word| Event {
            thread: usize::MAX,
            word,
            reads: false,
            writes: Some(0),
            expects: None,
            order: Relaxed,
            fence: false,
        })
        .collect();
    choose_events(program, 0, 0, &mut events, &mut Vec::new(), &mut found);
    found
}

/// A condition on a thread's last read: the event, the value, and whether it must be equal.
type Condition = (usize, u32, bool);

fn choose_events(
    program: &Program,
    thread: usize,
    at: usize,
    events: &mut Vec<Event>,
    conditions: &mut Vec<Condition>,
    found: &mut BTreeSet<Outcome>,
) {
    if thread == program.len() {
        choose_reads(program.len(), events, conditions, found);
        return;
    }
    let Some(op) = program[thread].get(at) else {
        return choose_events(program, thread + 1, 0, events, conditions, found);
    };
    let blank =
        Event { thread, word: 0, reads: false, writes: None, expects: None, order: Relaxed, fence: false };
    let event = match *op {
        Op::Load(word, order) => Event { word, reads: true, order, ..blank },
        Op::Store(word, value, order) => Event { word, writes: Some(value), order, ..blank },
        Op::Swap(word, value, order) => Event { word, reads: true, writes: Some(value), order, ..blank },
        Op::Fence(order) => Event { fence: true, order, ..blank },
        Op::Exchange(word, expected, new, success, failure) => {
            for (writes, order, succeeds) in [(Some(new), success, true), (None, failure, false)] {
                let expects = Some((expected, succeeds));
                events.push(Event { word, reads: true, writes, expects, order, ..blank });
                choose_events(program, thread, at + 1, events, conditions, found);
                events.pop();
            }
            return;
        }
        Op::Unless(value) => {
            let last = events.iter().rposition(|event| event.thread == thread && event.reads);
            let last = last.expect("a condition follows a read");
            conditions.push((last, value, true));
            choose_events(program, thread, at + 1, events, conditions, found);
            conditions.pop();
            conditions.push((last, value, false));
            choose_events(program, thread + 1, 0, events, conditions, found);
            conditions.pop();
            return;
        }
    };
    events.push(event);
    choose_events(program, thread, at + 1, events, conditions, found);
    events.pop();
}

fn choose_reads(threads: usize, events: &[Event], conditions: &[Condition], found: &mut BTreeSet<Outcome>) {
    let reads: Vec<usize> = (0..events.len()).filter(|&event| events[event].reads).collect();
    let mut from = vec![usize::MAX; events.len()];
    read_from(threads, events, conditions, &reads, &mut from, found);
}

fn read_from(
    threads: usize,
    events: &[Event],
    conditions: &[Condition],
    reads: &[usize],
    from: &mut Vec<usize>,
    found: &mut BTreeSet<Outcome>,
) {
    let Some((&read, rest)) = reads.split_first() else {
        let value = |read: usize| events[from[read]].writes.expect("a write");
        if conditions.iter().all(|&(read, expected, equal)| (value(read) == expected) == equal) {
            choose_orders(threads, events, from, found);
        }
        return;
    };
    for write in 0..events.len() {
        let Some(value) = events[write].writes else { continue };
        let fits = events[read].expects.is_none_or(|(expected, succeeds)| (value == expected) == succeeds);
        if write != read && events[write].word == events[read].word && fits {
            from[read] = write;
            read_from(threads, events, conditions, rest, from, found);
        }
    }
}

fn choose_orders(threads: usize, events: &[Event], from: &[usize], found: &mut BTreeSet<Outcome>) {
    let writes: Vec<Vec<usize>> = (0..WORDS)
        .map(|word| {
            let of_word = |&event: &usize| events[event].writes.is_some() && events[event].word == word;
            (0..events.len()).filter(of_word).collect()
        })
        .collect();
    let mut orders = vec![vec![]];
    for of_word in &writes {
        // The initial value is first.
        let rest = permutations(&of_word[1..]);
        orders = orders
            .iter()
            .flat_map(|chosen: &Vec<Vec<usize>>| {
                rest.iter().map(move |order| {
                    let mut all = chosen.clone();
                    all.push(std::iter::once(of_word[0]).chain(order.iter().copied()).collect());
                    all
                })
            })
            .collect();
    }
    for modification in orders {
        if is_consistent(events, from, &modification) {
            let read = (0..threads)
                .map(|thread| {
                    (0..events.len())
                        .filter(|&event| events[event].thread == thread && events[event].reads)
                        .map(|event| events[from[event]].writes.expect("a write"))
                        .collect()
                })
                .collect();
            let last =
                modification.iter().map(|order| events[order[order.len() - 1]].writes.expect("a write"));
            found.insert((read, last.collect()));
        }
    }
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for at in 0..of.len() {
        let mut rest = of.to_vec();
        let first = rest.remove(at);
        for mut tail in permutations(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

fn is_consistent(events: &[Event], from: &[usize], modification: &[Vec<usize>]) -> bool {
    let n = events.len();
    let empty = || vec![vec![false; n]; n];
    let place = |write: usize| {
        let order = &modification[events[write].word];
        order.iter().position(|&other| other == write).expect("in its word's order")
    };
    let reads = |event: usize| events[event].reads;
    let writes = |event: usize| events[event].writes.is_some();
    // Atomicity: a read-modify-write comes right after what it read.
    if (0..n).any(|event| reads(event) && writes(event) && place(event) != place(from[event]) + 1) {
        return false;
    }
    let before = |a: usize, b: usize| {
        a != b
            && (events[a].thread == usize::MAX || (events[a].thread == events[b].thread && a < b))
            && events[b].thread != usize::MAX
    };
    let (mut program_order, mut reads_from, mut coherence) = (empty(), empty(), empty());
    for a in 0..n {
        for b in 0..n {
            program_order[a][b] = before(a, b);
            reads_from[a][b] = reads(b) && from[b] == a;
            let same = !events[a].fence && !events[b].fence && events[a].word == events[b].word;
            // Modification order, and reads before what overwrites what they read.
            coherence[a][b] = a != b
                && same
                && writes(b)
                && ((writes(a) && place(a) < place(b)) || (reads(a) && place(from[a]) < place(b)));
        }
    }
    let either = |x: &Relation, y: &Relation| -> Relation {
        (0..n).map(|a| (0..n).map(|b| x[a][b] || y[a][b]).collect()).collect()
    };
    // No load buffering.
    if !is_acyclic(&either(&program_order, &reads_from)) {
        return false;
    }
    let mut happens = program_order.clone();
    for write in 0..n {
        for read in 0..n {
            if synchronizes(events, from, &program_order, write, read) {
                // From the releasing event or fence to the acquiring one.
                for (a, happen) in happens.iter_mut().enumerate() {
                    let releases = a == write && is_release(events[a].order)
                        || events[a].fence && is_release(events[a].order) && program_order[a][write];
                    for (b, edge) in happen.iter_mut().enumerate() {
                        let acquires = b == read && is_acquire(events[b].order)
                            || events[b].fence && is_acquire(events[b].order) && program_order[read][b];
                        *edge |= releases && acquires;
                    }
                }
            }
        }
    }
    close(&mut happens);
    let mut extended = either(&coherence, &reads_from);
    close(&mut extended);
    // Coherence: what happens before is not contradicted by what a word's history says.
    if (0..n).any(|a| happens[a][a] || (0..n).any(|b| happens[a][b] && extended[b][a])) {
        return false;
    }
    // SC fences: there is an order of them that program order and the words' histories agree with.
    let mut sc = empty();
    for a in 0..n {
        for b in 0..n {
            let full = |event: usize| events[event].fence && events[event].order == SeqCst;
            sc[a][b] = full(a)
                && full(b)
                && a != b
                && (happens[a][b]
                    || (0..n).any(|x| happens[a][x] && (0..n).any(|y| extended[x][y] && happens[y][b])));
        }
    }
    is_acyclic(&sc)
}

/// Whether `read` reads `write` or its release sequence: read-modify-writes that follow it without a gap.
fn synchronizes(events: &[Event], from: &[usize], _order: &Relation, write: usize, read: usize) -> bool {
    if !events[read].reads || events[write].writes.is_none() {
        return false;
    }
    let mut source = from[read];
    loop {
        if source == write {
            return true;
        }
        // Further back only through a read-modify-write.
        if !events[source].reads {
            return false;
        }
        source = from[source];
    }
}
