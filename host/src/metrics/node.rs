//! The metrics that nodes make for themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use flowbay_abi::{Metric, MetricKind};

/// Metrics of one node. The most that ours have is a dozen; a name made of what a peer sends would be a leak.
const MAX_PER_NODE: usize = 100;
/// Names of metrics in all. Each is remembered as long as the host runs.
const MAX_FAMILIES: usize = 1_000;
/// Bytes of a name.
const MAX_NAME: usize = 100;
/// Characters of a help text; the rest is left out.
const MAX_HELP: usize = 500;

/// What the ends of a counter's names are. The text format adds it itself.
const TOTAL: &str = "_total";

/// Why a metric is not shown.
#[derive(Debug, PartialEq, Eq)]
pub enum NotShown {
    /// Its name cannot be a metric's.
    BadName,
    /// A counter whose name does not end with `_total`, or a gauge whose name does.
    WrongEnding,
    /// The name is one of the host's own, or that of a metric of the other kind.
    NameTaken,
    /// The node has too many, or all nodes together.
    TooMany,
}

impl std::fmt::Display for NotShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NotShown::BadName => "a name has the letters a to z, digits and _, and begins with a letter",
            NotShown::WrongEnding => "the names of counters, and of nothing else, end with _total",
            NotShown::NameTaken => {
                "its name, without _total, is that of a metric of another kind or of the host's own"
            }
            NotShown::TooMany => "there are too many",
        })
    }
}

impl std::error::Error for NotShown {}

/// The names of the metrics that there are: what one name means, it means for all nodes.
#[derive(Debug)]
pub struct Families {
    by_name: Mutex<BTreeMap<Arc<str>, Family>>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its kind.
    pub kind: MetricKind,
    /// What it counts, as the last node that asked for it said; without control characters.
    pub help: String,
    /// It is the host's own.
    reserved: bool,
}

impl Family {
    /// What nodes count under one name.
    pub fn new(kind: MetricKind, help: String) -> Self {
        Self { kind, help, reserved: false }
    }
}

impl Families {
    /// With the host's own names: no node gets one of these.
    pub fn new<'a>(own: impl IntoIterator<Item = &'a str>) -> Self {
        let own = own.into_iter().map(|name| {
            let family = Family { kind: MetricKind::Gauge, help: String::new(), reserved: true };
            (Arc::from(name), family)
        });
        Self { by_name: Mutex::new(own.collect()) }
    }

    /// The name as the families know it: without a counter's ending.
    ///
    /// # Errors
    /// The name is none, or taken.
    fn claim(&self, kind: MetricKind, name: &str, help: &str) -> Result<Arc<str>, NotShown> {
        let is_name = name.len() <= MAX_NAME
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_name {
            return Err(NotShown::BadName);
        }
        let name = match (kind, name.strip_suffix(TOTAL)) {
            (MetricKind::Counter, Some(name)) if !name.is_empty() => name,
            (MetricKind::Gauge, None) => name,
            _ => return Err(NotShown::WrongEnding),
        };
        let mut families = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let help = help.chars().take(MAX_HELP).map(|c| if c.is_control() { ' ' } else { c });
        // The text format has no other way to say these than escapes, which its older form reads in another way.
        let help = help
            .map(|c| {
                if c == '\\' {
                    '/'
                } else if c == '"' {
                    '\''
                } else {
                    c
                }
            })
            .collect();
        if let Some((name, family)) = families.get_key_value(name) {
            if family.kind != kind || family.reserved {
                return Err(NotShown::NameTaken);
            }
            let name = name.clone();
            families.insert(name.clone(), Family::new(kind, help));
            return Ok(name);
        }
        if families.len() >= MAX_FAMILIES {
            return Err(NotShown::TooMany);
        }
        let name: Arc<str> = Arc::from(name);
        families.insert(name.clone(), Family::new(kind, help));
        Ok(name)
    }

    /// What the nodes' names stand for, in order.
    pub fn all(&self) -> Vec<(Arc<str>, Family)> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = by_name.iter().filter(|(_, family)| !family.reserved);
        theirs.map(|(name, family)| (name.clone(), family.clone())).collect()
    }
}

/// The metrics of one node. They belong to its cell: newer code of the node counts on.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    metrics: Mutex<Vec<(Arc<str>, Metric)>>,
}

impl NodeMetrics {
    /// The node's metric of that name; made when there is none.
    ///
    /// # Errors
    /// It is not to be shown.
    pub fn get(
        &self,
        families: &Families,
        kind: MetricKind,
        name: &str,
        help: &str,
    ) -> Result<Metric, NotShown> {
        let name = families.claim(kind, name, help)?;
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metric)) = metrics.iter().find(|(known, _)| *known == name) {
            return Ok(metric.clone());
        }
        if metrics.len() >= MAX_PER_NODE {
            return Err(NotShown::TooMany);
        }
        let metric = Metric::new();
        metrics.push((name, metric.clone()));
        Ok(metric)
    }

    /// What they stand at, by the names that [`Families::all`] has.
    pub fn read(&self) -> Vec<(Arc<str>, i64)> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.iter().map(|(name, metric)| (name.clone(), metric.get())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MetricKind::{Counter, Gauge};

    fn families() -> Families {
        Families::new(["uptime_seconds"])
    }

    #[test]
    fn the_same_name_is_the_same_number() {
        let (families, node) = (families(), NodeMetrics::default());
        node.get(&families, Counter, "cakes_total", "Cakes").unwrap().add(2);
        node.get(&families, Counter, "cakes_total", "Cakes eaten").unwrap().add(1);
        assert_eq!(node.read(), [("cakes".into(), 3)]);
        assert_eq!(families.all()[0].1.help, "Cakes eaten");
        let other = NodeMetrics::default();
        assert_eq!(other.get(&families, Counter, "cakes_total", "").unwrap().get(), 0);
    }

    #[test]
    fn names_that_the_text_format_cannot_show_are_refused() {
        let (families, node) = (families(), NodeMetrics::default());
        let long = "x".repeat(MAX_NAME + 1);
        for name in ["", "_x", "1x", "a-b", "a b", "Ünder", "a\nb", "a{b=\"c\"}", long.as_str()] {
            assert_eq!(node.get(&families, Gauge, name, "").unwrap_err(), NotShown::BadName, "{name}");
        }
        for (kind, name) in [(Counter, "a"), (Gauge, "a_total")] {
            assert_eq!(node.get(&families, kind, name, "").unwrap_err(), NotShown::WrongEnding, "{name}");
        }
        assert!(node.read().is_empty());
    }

    #[test]
    fn a_name_has_one_meaning_and_the_hosts_are_its_own() {
        let (families, node) = (families(), NodeMetrics::default());
        assert_eq!(node.get(&families, Gauge, "uptime_seconds", "").unwrap_err(), NotShown::NameTaken);
        node.get(&families, Gauge, "cakes", "").unwrap();
        assert_eq!(node.get(&families, Counter, "cakes_total", "").unwrap_err(), NotShown::NameTaken);
    }

    #[test]
    fn a_node_that_makes_names_of_what_it_hears_has_no_more_than_so_many() {
        let (families, node) = (families(), NodeMetrics::default());
        let asked: Vec<_> =
            (0..=MAX_PER_NODE).map(|n| node.get(&families, Gauge, &format!("m{n}"), "")).collect();
        assert!(asked[..MAX_PER_NODE].iter().all(Result::is_ok));
        assert_eq!(*asked[MAX_PER_NODE].as_ref().unwrap_err(), NotShown::TooMany);
        assert!(node.get(&families, Gauge, "m0", "").is_ok(), "those that it has go on");
    }

    #[test]
    fn a_help_text_is_one_line_without_anything_to_escape() {
        let (families, node) = (families(), NodeMetrics::default());
        node.get(&families, Gauge, "a", "one\ntwo \\ \"three\"").unwrap();
        assert_eq!(families.all()[0].1.help, "one two / 'three'");
    }
}
