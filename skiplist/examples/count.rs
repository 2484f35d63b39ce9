//! t
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use skiplist::SkipList;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
thread_local! { static C: Cell<u64> = const {Cell::new(0)}; }
#[derive(Clone, PartialEq, Eq)]
struct K(u64);
impl PartialOrd for K {
    fn partial_cmp(&self, o: &K) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for K {
    fn cmp(&self, o: &K) -> Ordering {
        C.set(C.get() + 1);
        self.0.cmp(&o.0)
    }
}
fn main() {
    for n in [10_000u64, 300_000, 1_000_000] {
        let mut r = Pcg64Mcg::seed_from_u64(1);
        let keys: Vec<u64> = (0..n).map(|_| r.next_u64()).collect();
        let mut l = SkipList::new();
        let mut t = BTreeMap::new();
        C.set(0);
        for k in &keys {
            l.insert(K(*k), ());
        }
        let li = C.get();
        C.set(0);
        for k in &keys {
            t.insert(K(*k), ());
        }
        let ti = C.get();
        C.set(0);
        for k in &keys {
            l.get(&K(*k));
        }
        let lg = C.get();
        C.set(0);
        for k in &keys {
            t.get(&K(*k));
        }
        let tg = C.get();
        let f = |x: u64| x as f64 / n as f64;
        println!(
            "{n}: insert {:.1} {:.1} get {:.1} {:.1} {:?}",
            f(li),
            f(ti),
            f(lg),
            f(tg),
            l.stats()
        );
    }
}
