//! What a process has used, as Linux tells it. Elsewhere nothing is known.

use std::fs;
use std::time::Duration;

use super::system::ended_while_measured;
use crate::error::Error;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, in steps of a clock tick (10 ms).
    pub(crate) cpu: Duration,
    /// Memory in RAM now.
    pub(crate) resident_bytes: u64,
}

/// The nodes with what each has used. Where this process can know that of itself it can of every node that runs: one
/// of which it is not known has ended, and is the error. Elsewhere nothing is known of any.
pub(crate) fn of_all(
    nodes: &[(u64, Option<Usage>)],
    system: &'static str,
) -> Result<Vec<(u64, Usage)>, Error> {
    let missing = nodes.iter().find(|(_, usage)| usage.is_none());
    match missing {
        Some((id, _)) if of(std::process::id()).is_some() => Err(ended_while_measured(
            system,
            format!("node {id} is not there any more"),
        )),
        _ => Ok(nodes
            .iter()
            .filter_map(|(id, usage)| Some((*id, (*usage)?)))
            .collect()),
    }
}

/// What the process of this id has used; `None` if that cannot be known.
pub(crate) fn of(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu: cpu(&stat, rustix::param::clock_ticks_per_second())?,
        resident_bytes: resident_bytes(&status)?,
    })
}

/// Fields 14 and 15 of `stat`. The second field, the program's name, may hold anything: count from its end.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let micros = (user + system)
        .checked_mul(1_000_000)?
        .checked_div(ticks_per_second)?;
    Some(Duration::from_micros(micros))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) b 1 (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1000 10";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu("7 (a) S 1", 100), None);
        assert_eq!(cpu(stat, 0), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nVmData: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn a_node_of_which_nothing_is_known_is_told_with_its_system() {
        let known = Usage {
            cpu: Duration::from_secs(1),
            resident_bytes: 7,
        };
        assert_eq!(of_all(&[(1, Some(known))], "ours").unwrap(), [(1, known)]);
        if cfg!(target_os = "linux") {
            let error = of_all(&[(1, Some(known)), (2, None)], "peer").unwrap_err();
            assert!(error.to_string().starts_with("peer: node 2 "), "{error}");
            assert_eq!(error.exit_status(), crate::CHECK_FAILED);
        }
    }

    #[test]
    fn this_process_has_used_memory() {
        if cfg!(target_os = "linux") {
            assert!(of(std::process::id()).unwrap().resident_bytes > 0);
        }
    }
}
