//! The arena: all nodes of a list in one vector, linked by their numbers instead of by pointers.

use crate::block::Block;

/// How many levels a tower has at most.
///
/// With p = 1/4 a level holds a quarter of the blocks of the level below, so twelve levels serve 4^12 blocks (some
/// 500 million entries) in logarithmic time; beyond that the list stays correct and its search slowly grows linear.
pub(crate) const MAX_HEIGHT: usize = 12;

/// The number of a node in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// The node before all others. It is always there, and nothing links to it.
    pub(crate) const HEAD: Self = Self(0);

    /// What stands in a link when a level ends.
    const END: Self = Self(u32::MAX);

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// For each level a node: the last one before some key.
pub(crate) type Predecessors = [NodeId; MAX_HEIGHT];

/// A block of entries and the tower of links over it.
///
/// The tower has room for every level. That costs some 40 bytes for each block that is not tall, under a byte an
/// entry, and saves the search a second memory access at each step.
#[derive(Clone)]
struct Node<K, V> {
    /// A lower bound of the block's keys, set when the node is linked and kept as keys come and go. It repeats a key
    /// so that a search compares without touching the block. Only the head has none: it starts before every key.
    fence: Option<K>,
    next: [NodeId; MAX_HEIGHT],
    height: usize,
    block: Block<K, V>,
}

impl<K, V> Node<K, V> {
    fn new(fence: Option<K>, height: usize, block: Block<K, V>) -> Self {
        Self {
            fence,
            next: [NodeId::END; MAX_HEIGHT],
            height,
            block,
        }
    }
}

/// The nodes of one list. Slots of removed nodes are used again before the vector grows.
#[derive(Clone)]
pub(crate) struct Arena<K, V> {
    nodes: Vec<Node<K, V>>,
    free: Vec<NodeId>,
}

impl<K, V> Arena<K, V> {
    /// An arena with nothing but the head.
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::new(None, MAX_HEIGHT, Block::default())],
            free: Vec::new(),
        }
    }

    /// The node that follows `node` on `level`.
    #[inline]
    pub(crate) fn next(&self, node: NodeId, level: usize) -> Option<NodeId> {
        let next = self.nodes[node.index()].next[level];
        (next != NodeId::END).then_some(next)
    }

    /// The fence of a node that is not the head.
    #[inline]
    pub(crate) fn fence(&self, node: NodeId) -> &K {
        self.nodes[node.index()]
            .fence
            .as_ref()
            .expect("only the head has no fence, and nothing links to the head")
    }

    pub(crate) fn height(&self, node: NodeId) -> usize {
        self.nodes[node.index()].height
    }

    #[inline]
    pub(crate) fn block(&self, node: NodeId) -> &Block<K, V> {
        &self.nodes[node.index()].block
    }

    #[inline]
    pub(crate) fn block_mut(&mut self, node: NodeId) -> &mut Block<K, V> {
        &mut self.nodes[node.index()].block
    }

    pub(crate) fn take_block(&mut self, node: NodeId) -> Block<K, V> {
        std::mem::take(self.block_mut(node))
    }

    /// Puts a block into the list, behind `predecessors` on each level of its tower.
    pub(crate) fn link(
        &mut self,
        fence: K,
        block: Block<K, V>,
        height: usize,
        predecessors: &Predecessors,
    ) -> NodeId {
        let mut node = Node::new(Some(fence), height, block);
        for (level, predecessor) in predecessors.iter().enumerate().take(height) {
            node.next[level] = self.nodes[predecessor.index()].next[level];
        }
        let id = self.store(node);
        for (level, predecessor) in predecessors.iter().enumerate().take(height) {
            self.nodes[predecessor.index()].next[level] = id;
        }
        id
    }

    /// Takes `node` out of the list and returns its block; the slot is free for the next node.
    pub(crate) fn unlink(&mut self, node: NodeId, predecessors: &Predecessors) -> Block<K, V> {
        for (level, predecessor) in predecessors.iter().enumerate().take(self.height(node)) {
            debug_assert_eq!(
                self.nodes[predecessor.index()].next[level],
                node,
                "not the node before"
            );
            self.nodes[predecessor.index()].next[level] = self.nodes[node.index()].next[level];
        }
        self.nodes[node.index()].fence = None;
        self.free.push(node);
        self.take_block(node)
    }

    /// Blocks in the list, the head's included.
    pub(crate) fn blocks(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Slots that wait to be used again.
    pub(crate) fn free_slots(&self) -> usize {
        self.free.len()
    }

    fn store(&mut self, node: Node<K, V>) -> NodeId {
        if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            return id;
        }
        let id = u32::try_from(self.nodes.len())
            .ok()
            .filter(|&id| id != NodeId::END.0)
            .expect("under 2^32 blocks: with over 100 bytes each, more do not fit into memory");
        self.nodes.push(node);
        NodeId(id)
    }
}
