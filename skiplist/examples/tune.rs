//! t
use bytes::Bytes;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use skiplist::SkipList;
use std::collections::BTreeMap;
use std::time::Instant;
#[derive(Clone)]
struct Value {
    _data: Bytes,
    _version: u64,
}
fn main() {
    let n: usize = std::env::args().nth(1).map_or(1_000_000, |a| a.parse().unwrap());
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let entries: Vec<(Bytes, Value)> = (0..n as u64)
        .map(|i| {
            (
                Bytes::from(format!("tab/{:020}", random.next_u64())),
                Value {
                    _data: Bytes::from(vec![7; 64]),
                    _version: i,
                },
            )
        })
        .collect();
    let mut keys: Vec<Bytes> = entries.iter().map(|(k, _)| Bytes::copy_from_slice(k)).collect();
    for last in (1..keys.len()).rev() {
        keys.swap(last, random.next_u32() as usize % (last + 1));
    }

    let mut sum = [0f64; 6];
    let mut list = SkipList::new();
    let mut tree = BTreeMap::new();
    let rounds = if n > 100_000 { 1 } else { 40 };
    let chunk = 5000;
    macro_rules! time {
        ($i:expr, $e:expr) => {{
            let t = Instant::now();
            $e;
            sum[$i] += t.elapsed().as_secs_f64() * 1e9;
        }};
    }
    for _ in 0..rounds {
        list = SkipList::new();
        tree = BTreeMap::new();
        for c in entries.chunks(chunk) {
            time!(
                0,
                for (k, v) in c {
                    list.insert(k.clone(), v.clone());
                }
            );
            time!(
                1,
                for (k, v) in c {
                    tree.insert(k.clone(), v.clone());
                }
            );
        }
    }
    for _ in 0..rounds * 2 {
        for (c, d) in keys.chunks(chunk).zip(keys.rchunks(chunk)) {
            time!(
                2,
                for k in c {
                    assert!(list.get(&k[..]).is_some());
                }
            );
            time!(
                3,
                for k in d {
                    assert!(tree.get(&k[..]).is_some());
                }
            );
        }
        time!(4, {
            let s: usize = list
                .iter()
                .map(|(k, v)| k[k.len() - 1] as usize + v._data.len())
                .sum();
            assert!(s > 0);
        });
        time!(5, {
            let s: usize = tree
                .iter()
                .map(|(k, v)| k[k.len() - 1] as usize + v._data.len())
                .sum();
            assert!(s > 0);
        });
    }
    let per = |i: usize, r: usize| sum[i] / (n * r * rounds) as f64;
    println!(
        "insert {:.0} / {:.0} = {:.2}   get {:.0} / {:.0} = {:.2}   scan {:.1} / {:.1} = {:.2}",
        per(0, 1),
        per(1, 1),
        sum[0] / sum[1],
        per(2, 2),
        per(3, 2),
        sum[2] / sum[3],
        per(4, 2),
        per(5, 2),
        sum[4] / sum[5]
    );
}
