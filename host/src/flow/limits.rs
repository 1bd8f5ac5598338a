//! Bounds on what a flow file may unfold into. A small file can describe a very large graph: subflows inside subflows
//! double at every level, and a variable can hold a large object that every node refers to.

/// Bounds for [`FlowGraph::build`](super::FlowGraph::build). What lies beyond is left out and reported as a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries that all subflow instances together may unfold into, counting nodes, groups, the instances themselves
    /// and the wires of their ports. Large installations have a few thousand.
    pub expanded_entries: usize,
    /// How deep instances may stand inside subflows.
    pub subflow_depth: usize,
    /// How deep groups may stand inside groups.
    pub group_depth: usize,
    /// Output ports of one node. The editor draws a few dozen at most.
    pub ports: usize,
    /// Wires that the graph may hold, and steps that may be taken through subflow ports to find them.
    pub wires: usize,
    /// Catch nodes, and status nodes, of one tab or subflow instance that hear of the whole tab or of their group. Every
    /// node is tied to each of these, so their number times that of all nodes must stay within bounds.
    pub listeners: usize,
    /// Rough memory for the configuration of all nodes and the values of all variables, in bytes.
    pub config_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            expanded_entries: 200_000,
            subflow_depth: 32,
            group_depth: 64,
            ports: 1_024,
            wires: 1_000_000,
            listeners: 100,
            config_bytes: 256 * 1024 * 1024,
        }
    }
}

/// An amount that is used up. Once something did not fit, nothing does: what is left out is then one clean cut.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    exceeded: bool,
}

impl Budget {
    pub(super) fn new(amount: usize) -> Budget {
        Budget { left: amount, exceeded: false }
    }

    /// Takes `amount`; false when it does not fit any more.
    pub(super) fn spend(&mut self, amount: usize) -> bool {
        if self.exceeded || amount > self.left {
            self.exceeded = true;
            return false;
        }
        self.left -= amount;
        true
    }

    pub(super) fn exceeded(&self) -> bool {
        self.exceeded
    }
}
