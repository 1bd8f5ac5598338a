//! What a node type says of itself before any node of it exists.

use flowbay_abi::value::{Object, Value};

/// What the host does with nodes of a type beyond delivering messages to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing more.
    Plain,
    /// It holds configuration that other nodes refer to; it has no wires.
    Config,
    /// It receives the errors of the nodes in its scope.
    Catch,
    /// It receives the status changes of the nodes in its scope.
    Status,
    /// It receives the messages that the nodes in its scope have completed.
    Complete,
    /// It receives from link outs.
    LinkIn,
    /// It is wired to link ins by their ids.
    LinkOut,
    /// It calls link ins and waits for the return.
    LinkCall,
    /// Messages begin in it.
    Source,
}

impl Role {
    /// The role's name in the plugin's description.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Plain => "plain",
            Role::Config => "config",
            Role::Catch => "catch",
            Role::Status => "status",
            Role::Complete => "complete",
            Role::LinkIn => "link-in",
            Role::LinkOut => "link-out",
            Role::LinkCall => "link-call",
            Role::Source => "source",
        }
    }
}

/// A node type's description: its name in flow files, what the palette shows, how the host treats it.
///
/// The `#[node]` attribute writes one from its arguments, which have the names of the methods here.
#[derive(Debug, Clone, Copy)]
pub struct NodeType {
    name: &'static str,
    role: Role,
    category: &'static str,
    color: &'static str,
    icon: &'static str,
    icon_svg: &'static str,
    align: &'static str,
    inputs: u32,
    outputs: u32,
    concurrency: u32,
    credentials: &'static [(&'static str, Credential)],
    html: &'static str,
    locales: &'static [(&'static str, &'static str)],
}

/// What a credential field holds: how the editor shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Text that may be shown, a user name for instance.
    Text,
    /// A secret, which never leaves the host again.
    Password,
}

impl Credential {
    const fn name(self) -> &'static str {
        match self {
            Credential::Text => "text",
            Credential::Password => "password",
        }
    }
}

impl NodeType {
    /// A plain type with no inputs and no outputs.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            role: Role::Plain,
            category: "",
            color: "#dddddd",
            icon: "",
            icon_svg: "",
            align: "left",
            inputs: 0,
            outputs: 0,
            concurrency: 1,
            credentials: &[],
            html: "",
            locales: &[],
        }
    }

    /// What the host does with it; plain unless said.
    #[must_use]
    pub const fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The palette category; `config` for config nodes.
    #[must_use]
    pub const fn category(self, category: &'static str) -> Self {
        Self { category, ..self }
    }

    /// The background colour, as CSS writes it.
    #[must_use]
    pub const fn color(self, color: &'static str) -> Self {
        Self { color, ..self }
    }

    /// The icon's file name: one of Node-RED's, or that of [`NodeType::icon_svg`].
    #[must_use]
    pub const fn icon(self, icon: &'static str) -> Self {
        Self { icon, ..self }
    }

    /// The icon itself, for one that is the plugin's own: `include_str!("lower-case.svg")`, 64 KiB at most. The type
    /// has an [`NodeType::icon`] then too, which is its name.
    #[must_use]
    pub const fn icon_svg(self, icon_svg: &'static str) -> Self {
        Self { icon_svg, ..self }
    }

    /// The side of the icon: `left` or `right`.
    #[must_use]
    pub const fn align(self, align: &'static str) -> Self {
        Self { align, ..self }
    }

    /// Number of inputs: 0 or 1.
    #[must_use]
    pub const fn inputs(self, inputs: u32) -> Self {
        Self { inputs, ..self }
    }

    /// Number of outputs, where it does not depend on a node's configuration.
    #[must_use]
    pub const fn outputs(self, outputs: u32) -> Self {
        Self { outputs, ..self }
    }

    /// How many messages a node may have in hand at a time: 1 unless said, 0 for any number. With one, the next
    /// message waits until the node is done with the last.
    #[must_use]
    pub const fn concurrency(self, concurrency: u32) -> Self {
        Self { concurrency, ..self }
    }

    /// The fields that are kept as credentials, encrypted and apart from the flow file; [`crate::Ctx::credentials`]
    /// has their values.
    #[must_use]
    pub const fn credentials(self, credentials: &'static [(&'static str, Credential)]) -> Self {
        Self { credentials, ..self }
    }

    /// The editor form and help, in the form of Node-RED's `.html` files.
    #[must_use]
    pub const fn html(self, html: &'static str) -> Self {
        Self { html, ..self }
    }

    /// The editor's texts by language tag, each a JSON object as Node-RED's message catalogues are:
    /// `&[("en-US", include_str!("en-US.json")), ("de", include_str!("de.json"))]`, 256 KiB each at most.
    #[must_use]
    pub const fn locales(self, locales: &'static [(&'static str, &'static str)]) -> Self {
        Self { locales, ..self }
    }

    /// The type's name in flow files.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How many messages a node may have in hand at a time; 0 for any number.
    pub const fn messages_in_hand(&self) -> u32 {
        self.concurrency
    }

    #[doc(hidden)]
    pub fn to_value(&self) -> Value {
        let mut object = Object::new();
        object.insert("type", self.name);
        object.insert("role", self.role.name());
        object.insert("category", self.category);
        object.insert("color", self.color);
        object.insert("icon", self.icon);
        if !self.icon_svg.is_empty() {
            object.insert("icon_svg", self.icon_svg);
        }
        object.insert("align", self.align);
        object.insert("inputs", i64::from(self.inputs));
        object.insert("outputs", i64::from(self.outputs));
        object.insert("concurrency", i64::from(self.concurrency));
        let credentials: Object =
            self.credentials.iter().map(|(field, kind)| (*field, Value::from(kind.name()))).collect();
        object.insert("credentials", credentials);
        object.insert("html", self.html);
        if !self.locales.is_empty() {
            let locales: Object =
                self.locales.iter().map(|(language, texts)| (*language, Value::from(*texts))).collect();
            object.insert("locales", locales);
        }
        Value::Object(object)
    }
}
