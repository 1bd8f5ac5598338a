//! What a node type does for its flow. The host knows roles, never type names: plugins declare them.

/// The part that nodes of a type play in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Takes messages, sends messages.
    #[default]
    Plain,
    /// Configuration shared by other nodes.
    Config,
    /// Receives the errors of the nodes in its `scope`.
    Catch,
    /// Receives the status of the nodes in its `scope`.
    Status,
    /// Is told when a node in its `scope` has finished with a message.
    Complete,
    /// Receives what `link out` nodes that name it send.
    LinkIn,
    /// Sends to the `link in` nodes that it names, or that name it; in mode `return`, back to the caller.
    LinkOut,
    /// Sends to a `link in` node and waits for the answer.
    LinkCall,
    /// Makes messages of its own, from outside the flow.
    Source,
}

/// Gives the role of a node type; [`Role::Plain`] for one that it does not know. Closures do.
pub trait Roles {
    /// Role of the type called `node_type`.
    fn role(&self, node_type: &str) -> Role;
}

impl<F: Fn(&str) -> Role> Roles for F {
    fn role(&self, node_type: &str) -> Role {
        self(node_type)
    }
}
