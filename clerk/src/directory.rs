//! What the clerk knows of the cluster: its servers, who leads, and who did not answer lately.
//!
//! Plain data, so that every rule can be tested without a socket. Times are durations since any fixed
//! moment of the caller's choice.

use std::sync::Arc;
use std::time::Duration;

use raft_core::NodeId;
use rpc::client::{Consistency, Member};

use crate::outcome::InvalidArgument;

/// The most servers a clerk keeps, given and learned together.
pub(crate) const MAX_ENDPOINTS: usize = 64;
/// The longest endpoint, in bytes: the longest host name, a colon and a port.
const MAX_ENDPOINT_BYTES: usize = 253 + 6;
/// How long a server that could not be reached is passed over, at least and at most.
const SHORTEST_COOLING: Duration = Duration::from_millis(100);
const LONGEST_COOLING: Duration = Duration::from_secs(2);

/// Where a server serves clients, as `host:port`.
pub(crate) type Address = Arc<str>;

/// Whom a request may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The leader; anyone who may know the leader while it is not known.
    Leader,
    /// Any server that answers.
    Anyone,
    /// One server after the other.
    InTurn,
}

/// Who answers linearizable reads. Every server promises the same; they differ in cost.
///
/// ```
/// use clerk::{Clerk, ReadFrom};
/// let clerk = Clerk::builder().endpoints(["127.0.0.1:7102"]).read_from(ReadFrom::Any).build()?;
/// # Ok::<(), clerk::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader: the fewest messages a read.
    #[default]
    Leader,
    /// All servers in turn: the reads of a busy cluster are spread over its machines. A follower asks the leader
    /// how fresh it must be, once for all reads that came together.
    Any,
}

impl ReadFrom {
    /// How a read that is to be this fresh asks for it.
    pub(crate) fn of(self, consistency: Consistency) -> Consistency {
        match (self, consistency) {
            (Self::Any, Consistency::Linearizable) => Consistency::Anywhere,
            _ => consistency,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    address: Address,
    /// Who answered there last.
    id: Option<NodeId>,
    /// Given by the user, so never dropped.
    given: bool,
    cooling_until: Duration,
    /// What answered there last was no server that this clerk can use.
    wrong: bool,
}

/// The servers, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Directory {
    endpoints: Vec<Endpoint>,
    leader: Option<Address>,
    /// Whose turn it is to be asked first when no leader is known.
    turn: usize,
}

impl Directory {
    /// Starts from the addresses the user gave; doubles are dropped.
    pub(crate) fn new(addresses: &[String]) -> Result<Self, InvalidArgument> {
        let mut directory = Self {
            endpoints: Vec::new(),
            leader: None,
            turn: 0,
        };
        for address in addresses {
            let address = address.trim();
            check_address(address)?;
            if directory.position(address).is_none() {
                directory.endpoints.push(Endpoint::new(address, None, true));
            }
        }
        match directory.endpoints.len() {
            0 => Err(InvalidArgument::NoEndpoint),
            count if count > MAX_ENDPOINTS => Err(InvalidArgument::TooManyEndpoints { count }),
            _ => Ok(directory),
        }
    }

    /// The leader, if one is known that was not asked before in this round.
    pub(crate) fn leader_besides(&self, asked: &[Address]) -> Option<Address> {
        self.leader.clone().filter(|leader| !asked.contains(leader))
    }

    /// The server whose turn it is, if it has not been asked in this round and could be reached lately.
    pub(crate) fn next_in_turn(&mut self, asked: &[Address], now: Duration) -> Option<Address> {
        let next = self.in_turn().find(|endpoint| endpoint.is_open_to(asked, now));
        let next = next.map(Endpoint::address);
        self.turn = (self.turn + 1) % self.endpoints.len();
        next
    }

    /// Whom to ask next, best first: the leader alone if one is known, else every server, except those
    /// asked before in this round and those that could not be reached lately. Servers that cannot be
    /// reached are asked all the same if a round would be empty without them.
    pub(crate) fn candidates(&mut self, want: Want, asked: &[Address], now: Duration) -> Vec<Address> {
        if want == Want::Leader
            && let Some(leader) = self.leader_besides(asked)
        {
            return vec![leader];
        }
        let mut fresh = self
            .in_turn()
            .filter(|e| e.is_open_to(asked, now))
            .map(Endpoint::address)
            .collect();
        if Vec::is_empty(&fresh) && asked.is_empty() {
            let mut cooling: Vec<&Endpoint> = self.in_turn().collect();
            cooling.sort_by_key(|endpoint| endpoint.cooling_until);
            fresh = cooling.into_iter().map(Endpoint::address).collect();
        }
        self.turn = (self.turn + 1) % self.endpoints.len();
        fresh
    }

    /// Whether [`Directory::candidates`] has anyone left for this round.
    pub(crate) fn another_left(&self, asked: &[Address], now: Duration) -> bool {
        self.leader.as_ref().is_some_and(|leader| !asked.contains(leader))
            || self
                .endpoints
                .iter()
                .any(|endpoint| endpoint.is_open_to(asked, now))
    }

    /// A connection to `address` stands, and `id` answered there.
    pub(crate) fn connected(&mut self, address: &str, id: NodeId) {
        let Some(at) = self.position(address) else { return };
        self.endpoints[at].id = Some(id);
        self.endpoints[at].cooling_until = Duration::ZERO;
        self.endpoints[at].wrong = false;
        if self.endpoints[at].given {
            // The address that the user gave is known to lead there; the advertised one may not.
            self.retain(|endpoint| endpoint.given || endpoint.id != Some(id));
        }
    }

    /// `address` could not be reached, which took `waited` to find out. The longer that was, the longer the
    /// server is passed over, so that it slows few calls down.
    pub(crate) fn unreachable(&mut self, address: &str, waited: Duration, now: Duration) {
        self.no_leader_at(address);
        if let Some(at) = self.position(address) {
            let cooling = waited.saturating_mul(2).clamp(SHORTEST_COOLING, LONGEST_COOLING);
            self.endpoints[at].cooling_until = now + cooling;
            self.endpoints[at].wrong = false;
        }
    }

    /// What answered at `address` is no server that this clerk can use.
    pub(crate) fn wrong_server(&mut self, address: &str) {
        if let Some(at) = self.position(address) {
            self.endpoints[at].wrong = true;
        }
    }

    /// Whether what answered last at every address is no server that this clerk can use.
    pub(crate) fn all_are_wrong(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.wrong)
    }

    /// `address` answered as only a leader does.
    pub(crate) fn leads(&mut self, address: &Address) {
        if self.leader.as_ref() != Some(address) {
            self.leader = Some(Arc::clone(address));
        }
    }

    /// Whatever was believed, `address` does not lead.
    pub(crate) fn no_leader_at(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
    }

    /// `from` says that it does not lead, and perhaps who does. A leader found in the meantime by another
    /// call is kept: the hint may be older. So may be one that names a server that cannot be reached.
    pub(crate) fn redirected(&mut self, from: &str, leader: Option<&Member>, now: Duration) {
        self.no_leader_at(from);
        if let Some(member) = leader
            && self.leader.is_none()
            && let Some(address) = self.address_of(member, now)
            && &*address != from
            && !self.is_cooling(&address, now)
        {
            self.leader = Some(address);
        }
    }

    /// `status` of some server named these members and perhaps the leader.
    pub(crate) fn learn(&mut self, members: &[Member], leader_id: Option<NodeId>, now: Duration) {
        self.retain(|e| e.given || members.iter().any(|member| member.client_addr == *e.address));
        for member in members {
            self.address_of(member, now);
        }
        if self.leader.is_none() {
            let leader = members.iter().find(|member| Some(member.id) == leader_id);
            let address = leader.and_then(|member| self.address_of(member, now));
            self.leader = address.filter(|address| !self.is_cooling(address, now));
        }
    }

    /// All servers known, with the id that was last seen there.
    pub(crate) fn servers(&self) -> Vec<(Address, Option<NodeId>)> {
        self.endpoints
            .iter()
            .map(|endpoint| (endpoint.address(), endpoint.id))
            .collect()
    }

    /// Where to reach `member`: at an address that is known to work for its id if there is one, else where
    /// it says; that may be a name only the servers know (a container's, say).
    fn address_of(&mut self, member: &Member, now: Duration) -> Option<Address> {
        let known = self
            .endpoints
            .iter()
            .find(|e| e.id == Some(member.id) && e.cooling_until <= now);
        if let Some(endpoint) = known {
            return Some(endpoint.address());
        }
        if let Some(at) = self.position(&member.client_addr) {
            // What a connection told outranks what a third server says.
            self.endpoints[at].id.get_or_insert(member.id);
            return Some(self.endpoints[at].address());
        }
        if self.endpoints.len() >= MAX_ENDPOINTS || check_address(&member.client_addr).is_err() {
            return None;
        }
        let endpoint = Endpoint::new(&member.client_addr, Some(member.id), false);
        let address = endpoint.address();
        self.endpoints.push(endpoint);
        Some(address)
    }

    fn retain(&mut self, keep: impl Fn(&Endpoint) -> bool) {
        self.endpoints.retain(keep);
        if let Some(leader) = self.leader.take() {
            self.leader = self.position(&leader).map(|_| leader);
        }
    }

    fn is_cooling(&self, address: &str, now: Duration) -> bool {
        self.position(address)
            .is_some_and(|at| self.endpoints[at].cooling_until > now)
    }

    fn position(&self, address: &str) -> Option<usize> {
        self.endpoints
            .iter()
            .position(|endpoint| &*endpoint.address == address)
    }

    fn in_turn(&self) -> impl Iterator<Item = &Endpoint> {
        let (before, from) = self.endpoints.split_at(self.turn.min(self.endpoints.len()));
        from.iter().chain(before)
    }
}

impl Endpoint {
    fn new(address: &str, id: Option<NodeId>, given: bool) -> Self {
        Self {
            address: address.into(),
            id,
            given,
            cooling_until: Duration::ZERO,
            wrong: false,
        }
    }

    fn address(&self) -> Address {
        Arc::clone(&self.address)
    }

    fn is_open_to(&self, asked: &[Address], now: Duration) -> bool {
        self.cooling_until <= now && !asked.contains(&self.address)
    }
}

/// Whether `address` is `host:port`: a name, an IPv4 address or a bracketed IPv6 address, and a port from 1.
fn check_address(address: &str) -> Result<(), InvalidArgument> {
    let refused = || InvalidArgument::Endpoint(address.chars().take(MAX_ENDPOINT_BYTES).collect());
    let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ', ',']);
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    if port.is_none() || !(bracketed || plain) || address.len() > MAX_ENDPOINT_BYTES {
        return Err(refused());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn directory(addresses: &[&str]) -> Directory {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        Directory::new(&addresses).unwrap()
    }

    fn member(id: u64, address: &str) -> Member {
        Member {
            id: NodeId(id),
            client_addr: address.into(),
        }
    }

    fn names(addresses: &[Address]) -> Vec<&str> {
        addresses.iter().map(|address| &**address).collect()
    }

    #[test]
    fn without_a_leader_everyone_is_asked_and_the_first_place_rotates() {
        let mut directory = directory(&["a:1", "b:1", "c:1"]);
        assert_eq!(
            names(&directory.candidates(Want::Leader, &[], NOW)),
            ["a:1", "b:1", "c:1"]
        );
        assert_eq!(
            names(&directory.candidates(Want::Leader, &[], NOW)),
            ["b:1", "c:1", "a:1"]
        );
    }

    #[test]
    fn reads_that_are_spread_go_to_one_server_after_the_other_past_those_that_are_away() {
        let mut directory = directory(&["a:1", "b:1", "c:1"]);
        directory.leads(&"b:1".into());
        let mut next = |asked: &[Address]| directory.next_in_turn(asked, NOW).unwrap();
        let turns = [(); 4].map(|()| next(&[]));
        assert_eq!(names(&turns), ["a:1", "b:1", "c:1", "a:1"]);
        assert_eq!(&*next(&["b:1".into()]), "c:1");
        directory.unreachable("c:1", Duration::from_secs(1), NOW);
        assert_eq!(directory.next_in_turn(&[], NOW).as_deref(), Some("a:1"));
        let all = ["a:1".into(), "b:1".into(), "c:1".into()];
        assert_eq!(directory.next_in_turn(&all, NOW), None);
    }

    #[test]
    fn only_linearizable_reads_are_spread() {
        assert_eq!(ReadFrom::Any.of(Consistency::Linearizable), Consistency::Anywhere);
        assert_eq!(
            ReadFrom::Leader.of(Consistency::Linearizable),
            Consistency::Linearizable
        );
        for other in [Consistency::Lease, Consistency::Log, Consistency::Stale] {
            assert_eq!(ReadFrom::Any.of(other), other);
        }
    }

    #[test]
    fn a_known_leader_is_asked_alone_and_only_once_a_round() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.redirected("a:1", Some(&member(2, "b:1")), NOW);
        assert_eq!(
            names(&directory.candidates(Want::Leader, &["a:1".into()], NOW)),
            ["b:1"]
        );
        let asked = ["a:1".into(), "b:1".into()];
        assert!(!directory.another_left(&asked, NOW));
        assert!(directory.candidates(Want::Leader, &asked, NOW).is_empty());
    }

    #[test]
    fn a_leader_that_says_it_does_not_lead_any_more_is_not_asked_first_again() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.leads(&"a:1".into());
        directory.redirected("a:1", None, NOW);
        assert_eq!(directory.candidates(Want::Leader, &[], NOW).len(), 2);
        directory.leads(&"a:1".into());
        directory.redirected("a:1", Some(&member(2, "b:1")), NOW);
        assert_eq!(names(&directory.candidates(Want::Leader, &[], NOW)), ["b:1"]);
    }

    #[test]
    fn a_hint_adds_a_server_that_was_not_known() {
        let mut directory = directory(&["a:1"]);
        directory.redirected("a:1", Some(&member(3, "c:1")), NOW);
        assert_eq!(names(&directory.candidates(Want::Leader, &[], NOW)), ["c:1"]);
    }

    #[test]
    fn a_hint_does_not_replace_a_leader_that_another_call_found() {
        let mut directory = directory(&["a:1", "b:1", "c:1"]);
        directory.leads(&"b:1".into());
        directory.redirected("a:1", Some(&member(3, "c:1")), NOW);
        assert_eq!(names(&directory.candidates(Want::Leader, &[], NOW)), ["b:1"]);
    }

    #[test]
    fn a_server_that_names_itself_while_it_refuses_is_not_believed() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.redirected("a:1", Some(&member(1, "a:1")), NOW);
        assert_eq!(directory.candidates(Want::Leader, &[], NOW).len(), 2);
    }

    #[test]
    fn the_address_that_works_is_preferred_to_the_advertised_one() {
        let mut directory = directory(&["localhost:7102", "localhost:7112"]);
        directory.learn(&[member(1, "10.0.0.1:1"), member(2, "10.0.0.2:1")], None, NOW);
        assert_eq!(directory.servers().len(), 4);
        directory.connected("localhost:7102", NodeId(1));
        directory.connected("localhost:7112", NodeId(2));
        assert_eq!(directory.servers().len(), 2);
        directory.redirected("localhost:7102", Some(&member(2, "10.0.0.2:1")), NOW);
        assert_eq!(
            names(&directory.candidates(Want::Leader, &[], NOW)),
            ["localhost:7112"]
        );
    }

    #[test]
    fn a_server_that_could_not_be_reached_is_passed_over_for_a_while() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.leads(&"a:1".into());
        directory.unreachable("a:1", Duration::from_secs(1), NOW);
        assert_eq!(names(&directory.candidates(Want::Leader, &[], NOW)), ["b:1"]);
        assert!(!directory.another_left(&["b:1".into()], NOW));
        let later = NOW + LONGEST_COOLING;
        assert_eq!(directory.candidates(Want::Leader, &[], later).len(), 2);
    }

    #[test]
    fn a_hint_at_a_server_that_cannot_be_reached_is_taken_for_an_old_one() {
        let mut directory = directory(&["a:1", "b:1", "c:1"]);
        directory.unreachable("a:1", Duration::from_secs(1), NOW);
        directory.redirected("b:1", Some(&member(1, "a:1")), NOW);
        let asked = ["b:1".into()];
        assert_eq!(names(&directory.candidates(Want::Leader, &asked, NOW)), ["c:1"]);
    }

    #[test]
    fn if_nobody_can_be_reached_everyone_is_tried_all_the_same() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.unreachable("a:1", Duration::from_secs(1), NOW);
        directory.unreachable("b:1", Duration::ZERO, NOW);
        assert_eq!(
            names(&directory.candidates(Want::Leader, &[], NOW)),
            ["b:1", "a:1"]
        );
    }

    #[test]
    fn all_are_wrong_only_while_every_last_answer_was() {
        let mut directory = directory(&["a:1", "b:1"]);
        directory.wrong_server("a:1");
        assert!(!directory.all_are_wrong());
        directory.wrong_server("b:1");
        assert!(directory.all_are_wrong());
        directory.unreachable("b:1", Duration::ZERO, NOW);
        assert!(!directory.all_are_wrong(), "it may come back as a server");
        directory.wrong_server("b:1");
        directory.connected("b:1", NodeId(2));
        assert!(!directory.all_are_wrong());
    }

    #[test]
    fn learned_servers_that_left_the_cluster_are_dropped_and_given_ones_kept() {
        let mut directory = directory(&["a:1"]);
        directory.learn(&[member(2, "b:1")], Some(NodeId(2)), NOW);
        assert_eq!(names(&directory.candidates(Want::Leader, &[], NOW)), ["b:1"]);
        directory.learn(&[member(3, "c:1")], None, NOW);
        let servers = directory.servers();
        assert_eq!(
            servers.iter().map(|(address, _)| &**address).collect::<Vec<_>>(),
            ["a:1", "c:1"]
        );
    }

    #[test]
    fn the_number_of_servers_is_bounded() {
        let mut directory = directory(&["a:1"]);
        let members: Vec<Member> = (0..200).map(|n| member(n, &format!("h{n}:1"))).collect();
        directory.learn(&members, None, NOW);
        assert_eq!(directory.servers().len(), MAX_ENDPOINTS);
    }

    #[test]
    fn endpoints_that_are_not_host_and_port_are_refused() {
        let long = format!("{}:1", "h".repeat(300));
        for wrong in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "::1:80",
            "[]:1",
            "http://a:1",
            "a,b:1",
            &long,
        ] {
            assert!(check_address(wrong).is_err(), "{wrong:?} was taken");
        }
        for right in [
            "127.0.0.1:7102",
            "localhost:1",
            "[::1]:7102",
            "kv-1.example.org:65535",
        ] {
            assert_eq!(check_address(right), Ok(()));
        }
        assert_eq!(Directory::new(&[]).unwrap_err(), InvalidArgument::NoEndpoint);
    }
}
