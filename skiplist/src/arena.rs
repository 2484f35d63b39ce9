//! The arena: all nodes of a list in one vector, linked by their numbers instead of by pointers.

use crate::block::Block;
use crate::page::Page;

/// How many levels a tower has at most.
///
/// With p = 1/4 a level holds a quarter of the nodes of the level below, so twelve levels serve 4^12 nodes, more
/// entries than fit into memory.
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

/// The number of a block: its node and its place in the node's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockId {
    pub(crate) node: NodeId,
    pub(crate) slot: usize,
}

impl BlockId {
    /// The block before all others. It is always there.
    pub(crate) const FIRST: Self = Self {
        node: NodeId::HEAD,
        slot: 0,
    };
}

/// A page of blocks and the tower of links over it.
#[derive(Clone)]
struct Node<K, V> {
    /// A lower bound of the page's keys, set when the node is linked and kept as keys come and go. It repeats a key
    /// so that a search compares without touching the page. Only the head has none: it starts before every key.
    fence: Option<K>,
    /// Room for every level, whatever the height: next to a page it is nothing, and it saves the search a step.
    next: [NodeId; MAX_HEIGHT],
    height: usize,
    page: Page<K, V>,
}

impl<K, V> Node<K, V> {
    fn new(fence: Option<K>, height: usize, page: Page<K, V>) -> Self {
        Self {
            fence,
            next: [NodeId::END; MAX_HEIGHT],
            height,
            page,
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
            nodes: vec![Node::new(None, MAX_HEIGHT, Page::default())],
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
    pub(crate) fn page(&self, node: NodeId) -> &Page<K, V> {
        &self.nodes[node.index()].page
    }

    pub(crate) fn page_mut(&mut self, node: NodeId) -> &mut Page<K, V> {
        &mut self.nodes[node.index()].page
    }

    #[inline]
    pub(crate) fn block(&self, block: BlockId) -> &Block<K, V> {
        self.page(block.node).block(block.slot)
    }

    #[inline]
    pub(crate) fn block_mut(&mut self, block: BlockId) -> &mut Block<K, V> {
        self.page_mut(block.node).block_mut(block.slot)
    }

    /// The block that follows `block`.
    pub(crate) fn next_block(&self, block: BlockId) -> Option<BlockId> {
        let slot = block.slot + 1;
        if slot < self.page(block.node).len() {
            return Some(BlockId {
                node: block.node,
                slot,
            });
        }
        self.next(block.node, 0).map(|node| BlockId { node, slot: 0 })
    }

    /// A lower bound of the keys of a block that is not the first of all.
    pub(crate) fn block_fence(&self, block: BlockId) -> &K {
        match block.slot.checked_sub(1) {
            Some(before) => &self.page(block.node).fences()[before],
            None => self.fence(block.node),
        }
    }

    /// Puts a page into the list, behind `predecessors` on each level of its tower.
    pub(crate) fn link(
        &mut self,
        fence: K,
        page: Page<K, V>,
        height: usize,
        predecessors: &Predecessors,
    ) -> NodeId {
        let mut node = Node::new(Some(fence), height, page);
        for (level, predecessor) in predecessors.iter().enumerate().take(height) {
            node.next[level] = self.nodes[predecessor.index()].next[level];
        }
        let id = self.store(node);
        for (level, predecessor) in predecessors.iter().enumerate().take(height) {
            self.nodes[predecessor.index()].next[level] = id;
        }
        id
    }

    /// Takes `node`, which is not the head, out of the list and returns its fence and page; the slot is free for the
    /// next node.
    pub(crate) fn unlink(&mut self, node: NodeId, predecessors: &Predecessors) -> (K, Page<K, V>) {
        for (level, predecessor) in predecessors.iter().enumerate().take(self.height(node)) {
            debug_assert_eq!(
                self.nodes[predecessor.index()].next[level],
                node,
                "not the node before"
            );
            self.nodes[predecessor.index()].next[level] = self.nodes[node.index()].next[level];
        }
        self.free.push(node);
        let removed = &mut self.nodes[node.index()];
        let fence = removed
            .fence
            .take()
            .expect("only the head has no fence, and it is never unlinked");
        (fence, std::mem::take(&mut removed.page))
    }

    /// Nodes in the list, the head included.
    pub(crate) fn nodes(&self) -> usize {
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
            .expect("under 2^32 nodes: with over 100 bytes each, more do not fit into memory");
        self.nodes.push(node);
        NodeId(id)
    }
}
