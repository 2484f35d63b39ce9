//! The nodes of the cluster.

use std::collections::BTreeMap;

use raft_core::NodeId;
use toml::Spanned;

use super::error::{ConfigError, Place, Source};
use super::file::NodeSection;
use super::{Address, MAX_NODES, NodeConfig};

/// Checks all `[[node]]` sections, each by itself and against the others.
pub(super) fn check(
    source: &Source<'_>,
    sections: Vec<Spanned<NodeSection>>,
) -> Result<BTreeMap<NodeId, NodeConfig>, ConfigError> {
    let count = sections.len();
    if count == 0 {
        let fix = "add a section [[node]] with id, raft_addr and client_addr for each node";
        return Err(source.error(Place::File, "the cluster has no nodes", fix));
    }
    let mut checker = Checker {
        source,
        count,
        ids: BTreeMap::new(),
        addresses: Vec::new(),
    };
    let mut nodes = BTreeMap::new();
    for (section, nth) in sections.into_iter().zip(1..) {
        let place = source.place_of(&section);
        if nth > MAX_NODES {
            let problem = format!("the cluster has {count} nodes: the limit is {MAX_NODES}");
            return Err(source.error(place, problem, "remove nodes; 3 or 5 are the usual numbers"));
        }
        let node = checker.node(place, section.into_inner())?;
        nodes.insert(node.id, node);
    }
    Ok(nodes)
}

/// What the sections before have taken.
struct Checker<'a> {
    source: &'a Source<'a>,
    count: usize,
    ids: BTreeMap<NodeId, Place>,
    addresses: Vec<(Address, Place)>,
}

impl Checker<'_> {
    fn node(&mut self, place: Place, section: NodeSection) -> Result<NodeConfig, ConfigError> {
        let id = self.id(place, section.id)?;
        let raft_addr = self.address(place, "raft_addr", section.raft_addr)?;
        let client_addr = self.address(place, "client_addr", section.client_addr)?;
        Ok(NodeConfig {
            id,
            raft_addr,
            client_addr,
        })
    }

    fn id(&mut self, section: Place, given: Option<Spanned<u64>>) -> Result<NodeId, ConfigError> {
        let given = given.ok_or_else(|| {
            self.source.error(
                section,
                "id is missing in this [[node]]",
                "add one, such as id = 1",
            )
        })?;
        let place = self.source.place_of(&given);
        let id = NodeId(given.into_inner());
        if id == NodeId::ZERO {
            return Err(self
                .source
                .error(place, "a node has id 0", "number the nodes from 1"));
        }
        match self.ids.insert(id, place) {
            None => Ok(id),
            Some(first) => Err(self.source.error(
                place,
                format!("two nodes have id {id}{}", on_line(first)),
                "give each node an id of its own",
            )),
        }
    }

    fn address(
        &mut self,
        section: Place,
        name: &str,
        given: Option<Spanned<String>>,
    ) -> Result<Address, ConfigError> {
        let port = if name == "client_addr" { 7102 } else { 7101 };
        let fix = format!("use host:port, such as {name} = \"127.0.0.1:{port}\"");
        let given = given.ok_or_else(|| {
            self.source.error(
                section,
                format!("{name} is missing in this [[node]]"),
                fix.clone(),
            )
        })?;
        let place = self.source.place_of(&given);
        let text = given.into_inner();
        let address: Address = text.parse().map_err(|problem: &str| {
            self.source
                .error(place, format!("{name} is {text:?}: {problem}"), fix)
        })?;
        if self.count > 1 && address.is_unspecified() {
            let problem = format!("{name} is {text:?}, which the other nodes and clients cannot dial");
            return Err(self.source.error(
                place,
                problem,
                "use the name or the address that they reach it by",
            ));
        }
        let taken = self
            .addresses
            .iter()
            .find(|(taken, _)| taken.clashes_with(&address));
        if let Some((taken, first)) = taken {
            let mut problem = format!("{address} is used twice{}", on_line(*first));
            if *taken != address {
                problem.push_str(&format!(" as {taken}"));
            }
            let fix = "give each raft_addr and each client_addr a port of its own";
            return Err(self.source.error(place, problem, fix));
        }
        self.addresses.push((address.clone(), place));
        Ok(address)
    }
}

fn on_line(first: Place) -> String {
    match first {
        Place::Line(line) => format!(", first on line {line}"),
        Place::Flag(_) | Place::Variable(_) | Place::File => String::new(),
    }
}
