//! A sequence of numbers in which every place is found, filled and emptied in logarithmic time: a B-tree whose
//! nodes know how many numbers are below them. What the numbers mean, and what they are ordered by, is the
//! caller's.

use crate::store::memory::allocation_bytes;

/// Numbers in a leaf: half a KiB with the allocator's own bytes.
const LEAF_LEN_MAX: usize = 126;

/// Children of an inner node.
const INNER_LEN_MAX: usize = 32;

#[derive(Debug)]
enum Node {
    Leaf(Vec<u32>),
    Inner(Vec<Child>),
}

#[derive(Debug)]
struct Child {
    /// How many numbers are below.
    len: usize,
    node: Node,
}

/// The sequence.
#[derive(Debug)]
pub(super) struct Order {
    root: Node,
    len: usize,
    leaves: usize,
    inners: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            root: Node::Leaf(new_leaf()),
            len: 0,
            leaves: 1,
            inners: 0,
        }
    }
}

/// A leaf's room is fixed, so that counting leaves counts bytes.
fn new_leaf() -> Vec<u32> {
    Vec::with_capacity(LEAF_LEN_MAX)
}

fn new_inner() -> Vec<Child> {
    Vec::with_capacity(INNER_LEN_MAX)
}

impl Order {
    /// What it allocates.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.leaves as u64 * allocation_bytes(LEAF_LEN_MAX * size_of::<u32>())
            + self.inners as u64 * allocation_bytes(INNER_LEN_MAX * size_of::<Child>())
    }

    /// How many numbers at the front meet `is_before`, which no number behind one that doesn't may meet.
    pub(super) fn partition_point(&self, mut is_before: impl FnMut(u32) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(numbers) => return rank + numbers.partition_point(|&number| is_before(number)),
                Node::Inner(children) => {
                    let behind =
                        children.partition_point(|child| child.node.first().is_some_and(&mut is_before));
                    let Some(at) = behind.checked_sub(1) else {
                        return rank;
                    };
                    rank += children[..at].iter().map(|child| child.len).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// The numbers of one leaf from that place on, and those before it; none for a place behind the last.
    fn leaf_at(&self, rank: usize) -> (&[u32], &[u32]) {
        let (mut node, mut rank) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(numbers) => {
                    let (before, from) = numbers.split_at(rank.min(numbers.len()));
                    return (from, before);
                }
                Node::Inner(children) => {
                    let Some(child) = children.iter().find(|child| {
                        let is_here = rank < child.len;
                        if !is_here {
                            rank -= child.len;
                        }
                        is_here
                    }) else {
                        return (&[], &[]);
                    };
                    node = &child.node;
                }
            }
        }
    }

    /// The number at a place.
    pub(super) fn get(&self, rank: usize) -> Option<u32> {
        self.leaf_at(rank).0.first().copied()
    }

    /// The numbers from a place on.
    pub(super) fn iter_from(&self, rank: usize) -> impl Iterator<Item = u32> {
        let (mut next, mut leaf) = (rank, &[][..]);
        std::iter::from_fn(move || {
            if leaf.is_empty() {
                leaf = self.leaf_at(next).0;
            }
            let (first, rest) = leaf.split_first()?;
            leaf = rest;
            next += 1;
            Some(*first)
        })
    }

    /// The numbers before a place, from the last to the first.
    pub(super) fn iter_back_from(&self, rank: usize) -> impl Iterator<Item = u32> {
        let (mut left, mut leaf) = (rank.min(self.len), &[][..]);
        std::iter::from_fn(move || {
            let place = left.checked_sub(1)?;
            if leaf.is_empty() {
                let (from, before) = self.leaf_at(place);
                left = place;
                leaf = before;
                return from.first().copied();
            }
            let (last, rest) = leaf.split_last()?;
            leaf = rest;
            left = place;
            Some(*last)
        })
    }

    /// Puts a number before the one at `rank`, or behind the last.
    pub(super) fn insert(&mut self, rank: usize, number: u32) {
        let (len, mut grown) = (self.len, Grown::default());
        let sibling = self.root.insert(rank.min(len), number, &mut grown);
        self.len += 1;
        if let Some(sibling) = sibling {
            grown.inners += 1;
            let mut children = new_inner();
            let node = std::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            children.push(Child {
                len: self.len - sibling.len,
                node,
            });
            children.push(sibling);
            self.root = Node::Inner(children);
        }
        self.leaves += grown.leaves;
        self.inners += grown.inners;
    }

    /// Takes the number at a place away.
    pub(super) fn remove(&mut self, rank: usize) {
        if rank >= self.len {
            return;
        }
        let mut freed = Grown::default();
        self.root.remove(rank, &mut freed);
        self.len -= 1;
        self.leaves -= freed.leaves;
        self.inners -= freed.inners;
        loop {
            let only = match &mut self.root {
                Node::Inner(children) if children.len() == 1 => children.pop(),
                Node::Inner(children) if children.is_empty() => {
                    *self = Self::default();
                    return;
                }
                _ => return,
            };
            if let Some(only) = only {
                self.root = only.node;
                self.inners -= 1;
            }
        }
    }

    /// Replaces the number at a place.
    pub(super) fn set(&mut self, rank: usize, number: u32) {
        let (mut node, mut rank) = (&mut self.root, rank);
        loop {
            match node {
                Node::Leaf(numbers) => {
                    if let Some(old) = numbers.get_mut(rank) {
                        *old = number;
                    }
                    return;
                }
                Node::Inner(children) => {
                    let at = child_of(children, &mut rank);
                    node = &mut children[at].node;
                }
            }
        }
    }
}

/// The numbers in order fill a new sequence leaf by leaf.
impl FromIterator<u32> for Order {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut order = Self::default();
        for number in numbers {
            order.insert(order.len, number);
        }
        order
    }
}

impl Clone for Order {
    fn clone(&self) -> Self {
        self.iter_from(0).collect()
    }
}

/// Nodes that were added, or freed.
#[derive(Debug, Default)]
struct Grown {
    leaves: usize,
    inners: usize,
}

/// The child that has the place, or the last; `rank` becomes the place in it.
fn child_of(children: &[Child], rank: &mut usize) -> usize {
    let last = children.len() - 1;
    for (at, child) in children[..last].iter().enumerate() {
        if *rank < child.len {
            return at;
        }
        *rank -= child.len;
    }
    last
}

impl Node {
    fn first(&self) -> Option<u32> {
        match self {
            Self::Leaf(numbers) => numbers.first().copied(),
            Self::Inner(children) => children.first()?.node.first(),
        }
    }

    /// How many numbers or children there are in the node itself.
    fn width(&self) -> usize {
        match self {
            Self::Leaf(numbers) => numbers.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// Inserts, and returns what became too much for this node.
    fn insert(&mut self, rank: usize, number: u32, grown: &mut Grown) -> Option<Child> {
        match self {
            Self::Leaf(numbers) => {
                let mut sibling = None;
                if numbers.len() == LEAF_LEN_MAX {
                    // Numbers that come in order fill their leaves.
                    let kept = if rank == LEAF_LEN_MAX {
                        LEAF_LEN_MAX
                    } else {
                        LEAF_LEN_MAX / 2
                    };
                    let mut tail = new_leaf();
                    tail.extend_from_slice(&numbers[kept..]);
                    numbers.truncate(kept);
                    grown.leaves += 1;
                    if rank >= kept {
                        tail.insert(rank - kept, number);
                    } else {
                        numbers.insert(rank, number);
                    }
                    sibling = Some(Child {
                        len: tail.len(),
                        node: Self::Leaf(tail),
                    });
                } else {
                    numbers.insert(rank, number);
                }
                sibling
            }
            Self::Inner(children) => {
                let mut rank = rank;
                let at = child_of(children, &mut rank);
                let child = &mut children[at];
                child.len += 1;
                let split = child.node.insert(rank, number, grown)?;
                child.len -= split.len;
                if children.len() < INNER_LEN_MAX {
                    children.insert(at + 1, split);
                    return None;
                }
                let kept = if at + 1 == INNER_LEN_MAX {
                    INNER_LEN_MAX
                } else {
                    INNER_LEN_MAX / 2
                };
                let mut tail = new_inner();
                tail.extend(children.drain(kept..));
                if at + 1 >= kept {
                    tail.insert(at + 1 - kept, split);
                } else {
                    children.insert(at + 1, split);
                }
                grown.inners += 1;
                Some(Child {
                    len: tail.iter().map(|child| child.len).sum(),
                    node: Self::Inner(tail),
                })
            }
        }
    }

    fn remove(&mut self, rank: usize, freed: &mut Grown) {
        match self {
            Self::Leaf(numbers) => {
                numbers.remove(rank);
            }
            Self::Inner(children) => {
                let mut rank = rank;
                let at = child_of(children, &mut rank);
                children[at].len -= 1;
                children[at].node.remove(rank, freed);
                if children[at].len == 0 {
                    freed.add(&children[at].node);
                    children.remove(at);
                } else if at + 1 < children.len() {
                    join(children, at, freed);
                } else if at > 0 {
                    join(children, at - 1, freed);
                }
            }
        }
    }
}

/// Joins a child with the next one when both together fill half a node at most.
fn join(children: &mut Vec<Child>, at: usize, freed: &mut Grown) {
    let together = children[at].node.width() + children[at + 1].node.width();
    let width_max = match children[at].node {
        Node::Leaf(_) => LEAF_LEN_MAX / 2,
        Node::Inner(_) => INNER_LEN_MAX / 2,
    };
    if together > width_max {
        return;
    }
    let right = children.remove(at + 1);
    let left = &mut children[at];
    left.len += right.len;
    match (&mut left.node, right.node) {
        (Node::Leaf(numbers), Node::Leaf(more)) => {
            numbers.extend(more);
            freed.leaves += 1;
        }
        (Node::Inner(nodes), Node::Inner(more)) => {
            nodes.extend(more);
            freed.inners += 1;
        }
        // All leaves are equally deep.
        _ => {}
    }
}

impl Grown {
    /// Counts a node without numbers, and what is below it.
    fn add(&mut self, node: &Node) {
        match node {
            Node::Leaf(_) => self.leaves += 1,
            Node::Inner(children) => {
                self.inners += 1;
                for child in children {
                    self.add(&child.node);
                }
            }
        }
    }
}
