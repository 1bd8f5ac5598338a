//! The text of `GET /metrics`: OpenMetrics, which is what Prometheus reads.

use std::{collections::HashMap, fmt, time::Duration};

use flowbay_abi::MetricKind;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::MetricType,
    registry::Registry,
};

use super::process::{ProcessFigures, Start};
use crate::runtime::{Figures, MailboxFigures, NodeFigures, PluginFigures, SessionFigures};

/// What the host is called before each name that is its own or a node's.
const PREFIX: &str = "flowbay";

/// Names of the host's own metrics, without the prefix and a counter's ending: no node gets one of these.
pub const OWN: &[&str] = &[
    "build_info",
    "http_connections",
    "http_connections_max",
    "mailbox_bytes",
    "mailbox_in_hand",
    "mailbox_messages",
    "mailbox_refused",
    "plugin_generation",
    "plugin_generations_loaded",
    "session_cut",
    "session_dropped",
    "session_queue_bytes",
    "session_queue_messages",
    "sessions",
    "swap_held_seconds",
    "swap_last_seconds",
    "swap_seconds",
    "swaps",
    "uptime_seconds",
];

/// What a scrape shows.
#[derive(Debug)]
pub struct Scrape {
    /// The running flows.
    pub figures: Figures,
    /// Connections of the HTTP server, those of WebSockets among them, and how many there may be.
    pub connections: (usize, usize),
    /// Builds of plugins that are in memory.
    pub generations_loaded: usize,
    /// When the host began.
    pub start: Start,
    /// The process.
    pub process: ProcessFigures,
}

impl Scrape {
    /// The text.
    ///
    /// # Errors
    /// None that can be had: writing to a string does not fail.
    pub fn into_text(self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        // Under the names that every exporter gives them, which is where people look.
        let mut process = Registry::with_prefix("process");
        process.register_collector(Box::new(OfProcess(self.process, self.start)));
        encode_registry(&mut text, &process)?;
        let mut host = Registry::with_prefix(PREFIX);
        host.register_collector(Box::new(OfHost(self)));
        encode_registry(&mut text, &host)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct OfProcess(ProcessFigures, Start);

impl Collector for OfProcess {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let Self(process, start) = self;
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let all = [
            ("resident_memory_bytes", "Resident memory size in bytes", bytes(process.resident_bytes)),
            ("virtual_memory_bytes", "Virtual memory size in bytes", bytes(process.virtual_bytes)),
            ("open_fds", "Number of open file descriptors", bytes(process.open_files)),
            ("max_fds", "Maximum number of open file descriptors", bytes(process.max_files)),
            (
                "start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                Some(start.since_epoch().as_secs_f64()),
            ),
        ];
        for (name, help, value) in all {
            if let Some(value) = value {
                out.gauge(name, help, value)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OfHost(Scrape);

impl Collector for OfHost {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let Scrape { figures, connections, generations_loaded, start, .. } = &self.0;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauges("build_info", "The host's version", [(Labels(&version), 1.0)])?;
        out.gauge("uptime_seconds", "How long the host has been running", start.uptime().as_secs_f64())?;
        out.gauge(
            "http_connections",
            "Connections of clients that are open, those of WebSockets among them",
            connections.0 as f64,
        )?;
        out.gauge(
            "http_connections_max",
            "Connections of clients that may be open at a time",
            connections.1 as f64,
        )?;
        out.gauge(
            "plugin_generations_loaded",
            "Builds of plugins that are in memory",
            *generations_loaded as f64,
        )?;
        of_plugins(&mut out, &figures.plugins)?;
        of_mailboxes(&mut out, &figures.nodes)?;
        of_sessions(&mut out, &figures.nodes)?;
        of_nodes(&mut out, figures)
    }
}

fn of_plugins(out: &mut Out<'_>, plugins: &[PluginFigures]) -> fmt::Result {
    let labels: Vec<[(&str, &str); 1]> =
        plugins.iter().map(|plugin| [("plugin", plugin.name.as_str())]).collect();
    let each = |of: fn(&PluginFigures) -> f64| {
        labels.iter().zip(plugins).map(move |(labels, plugin)| (Labels(labels), of(plugin)))
    };
    out.gauges(
        "plugin_generation",
        "Which build of the plugin since the start is in use, 1 for the first",
        each(|plugin| plugin.swaps.generation as f64),
    )?;
    let results: Vec<([(&str, &str); 2], u64)> = plugins
        .iter()
        .flat_map(|plugin| {
            let of = |result, count| ([("plugin", plugin.name.as_str()), ("result", result)], count);
            [of("done", plugin.swaps.done), of("undone", plugin.swaps.undone)]
        })
        .collect();
    out.counters(
        "swaps",
        "Hot swaps; in one that was undone the old code went on",
        results.iter().map(|(labels, count)| (Labels(labels), *count)),
    )?;
    out.counters_of_seconds(
        "swap_seconds",
        "What hot swaps took, from the first node held to the last connection moved",
        labels.iter().zip(plugins).map(|(labels, plugin)| (Labels(labels), plugin.swaps.took)),
    )?;
    out.gauges(
        "swap_last_seconds",
        "What the last hot swap took",
        each(|plugin| plugin.swaps.last_took.as_secs_f64()),
    )?;
    out.gauges(
        "swap_held_seconds",
        "How long the last hot swap held messages back",
        each(|plugin| plugin.swaps.last_held.as_secs_f64()),
    )
}

fn of_mailboxes(out: &mut Out<'_>, nodes: &[NodeFigures]) -> fmt::Result {
    let each = |of: fn(&MailboxFigures) -> u64| {
        nodes.iter().filter_map(move |node| Some((NodeLabels(node), of(node.mailbox.as_ref()?))))
    };
    let gauges = |of| each(of).map(|(labels, value)| (labels, value as f64));
    out.gauges(
        "mailbox_messages",
        "Messages that wait for the node",
        gauges(|mailbox| mailbox.waiting as u64),
    )?;
    out.gauges(
        "mailbox_bytes",
        "Bytes of the messages that wait for the node",
        gauges(|mailbox| mailbox.waiting_bytes as u64),
    )?;
    out.gauges(
        "mailbox_in_hand",
        "Messages that the node is working on",
        gauges(|mailbox| mailbox.in_hand as u64),
    )?;
    out.counters(
        "mailbox_refused",
        "Messages to the node that were refused because its mailbox was full",
        each(|mailbox| mailbox.refused),
    )
}

fn of_sessions(out: &mut Out<'_>, nodes: &[NodeFigures]) -> fmt::Result {
    let each = |of: fn(&SessionFigures) -> u64| {
        nodes.iter().filter_map(move |node| Some((NodeLabels(node), of(node.sessions.as_ref()?))))
    };
    let gauges = |of| each(of).map(|(labels, value)| (labels, value as f64));
    out.gauges("sessions", "Connections that the node serves", gauges(|sessions| sessions.count as u64))?;
    out.gauges(
        "session_queue_messages",
        "Messages that wait to be sent to the node's connections",
        gauges(|sessions| sessions.messages as u64),
    )?;
    out.gauges(
        "session_queue_bytes",
        "Bytes of the messages that wait to be sent to the node's connections",
        gauges(|sessions| sessions.bytes as u64),
    )?;
    out.counters(
        "session_dropped",
        "Messages that were not sent because the queue of their connection was full",
        each(|sessions| sessions.dropped),
    )?;
    out.counters(
        "session_cut",
        "Connections that were cut because their queue was full",
        each(|sessions| sessions.cut),
    )
}

/// What the nodes count themselves.
fn of_nodes(out: &mut Out<'_>, figures: &Figures) -> fmt::Result {
    // All of one name must stand together.
    let mut by_name: HashMap<&str, Vec<(&NodeFigures, i64)>> = HashMap::new();
    for node in &figures.nodes {
        for (name, value) in &node.metrics {
            by_name.entry(name).or_default().push((node, *value));
        }
    }
    for (name, family) in &figures.families {
        // Without a node that has it, it is not worth a line.
        let Some(values) = by_name.get(&**name) else { continue };
        match family.kind {
            MetricKind::Counter => out.counters(
                name,
                &family.help,
                values.iter().map(|(node, value)| (NodeLabels(node), u64::try_from(*value).unwrap_or(0))),
            )?,
            MetricKind::Gauge => out.gauges(
                name,
                &family.help,
                values.iter().map(|(node, value)| (NodeLabels(node), *value as f64)),
            )?,
        }
    }
    Ok(())
}

/// Writes metrics, with all of one name together.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        number(&mut self.0.encode_descriptor(name, help, None, MetricType::Gauge)?, value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            number(&mut encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    fn counters_of_seconds<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, Duration)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let seconds = value.as_secs_f64();
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        Ok(())
    }
}

/// Most are whole, and look better so.
fn number(encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    if value.fract() == 0.0 && value.abs() < 2_f64.powi(53) {
        encoder.encode_gauge(&(value as i64))
    } else {
        encoder.encode_gauge(&value)
    }
}

#[derive(Debug)]
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// The labels that say which node it is.
#[derive(Debug)]
struct NodeLabels<'a>(&'a NodeFigures);

impl EncodeLabelSet for NodeLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let node = self.0;
        [("node", node.id.as_str()), ("type", node.node_type.as_str()), ("name", node.name.as_str())]
            .encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::metrics::{Family, PluginSwaps};

    fn scrape(figures: Figures) -> String {
        let scrape = Scrape {
            figures,
            connections: (3, 10),
            generations_loaded: 2,
            start: Start::now(),
            process: ProcessFigures { resident_bytes: Some(4096), ..ProcessFigures::default() },
        };
        scrape.into_text().unwrap()
    }

    fn node(id: &str) -> NodeFigures {
        NodeFigures { id: id.to_owned(), node_type: "cake".to_owned(), ..NodeFigures::default() }
    }

    /// The lines of a metric, without those that describe it.
    fn lines<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
        let is_of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(is_of).collect()
    }

    #[test]
    fn what_the_host_has_is_there_without_any_node() {
        let text = scrape(Figures::default());
        assert_eq!(lines(&text, "flowbay_http_connections"), ["flowbay_http_connections 3"]);
        assert_eq!(lines(&text, "flowbay_http_connections_max"), ["flowbay_http_connections_max 10"]);
        assert_eq!(lines(&text, "process_resident_memory_bytes"), ["process_resident_memory_bytes 4096"]);
        assert!(!text.contains("process_open_fds"), "not known");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_nodes_numbers_carry_its_labels_and_are_described_once() {
        let mut one = node("a");
        one.mailbox = Some(MailboxFigures { waiting: 5, refused: 2, ..MailboxFigures::default() });
        one.metrics = vec![("cakes".into(), 7), ("ovens".into(), -1)];
        let mut two = node("b");
        two.sessions = Some(SessionFigures { count: 1, messages: 2, bytes: 30, dropped: 4, cut: 5 });
        two.metrics = vec![("cakes".into(), 8)];
        let families = vec![
            ("cakes".into(), Family::new(MetricKind::Counter, "Cakes that were baked".to_owned())),
            ("ovens".into(), Family::new(MetricKind::Gauge, String::new())),
            ("spoons".into(), Family::new(MetricKind::Gauge, String::new())),
        ];
        let text = scrape(Figures { nodes: vec![one, two], families, plugins: Vec::new() });
        let (a, b) = (r#"{node="a",type="cake",name=""}"#, r#"{node="b",type="cake",name=""}"#);
        for (name, expected) in [
            ("flowbay_mailbox_messages", vec![format!("flowbay_mailbox_messages{a} 5")]),
            ("flowbay_mailbox_refused_total", vec![format!("flowbay_mailbox_refused_total{a} 2")]),
            ("flowbay_session_queue_messages", vec![format!("flowbay_session_queue_messages{b} 2")]),
            ("flowbay_session_queue_bytes", vec![format!("flowbay_session_queue_bytes{b} 30")]),
            ("flowbay_session_dropped_total", vec![format!("flowbay_session_dropped_total{b} 4")]),
            ("flowbay_session_cut_total", vec![format!("flowbay_session_cut_total{b} 5")]),
            (
                "flowbay_cakes_total",
                vec![format!("flowbay_cakes_total{a} 7"), format!("flowbay_cakes_total{b} 8")],
            ),
            ("flowbay_ovens", vec![format!("flowbay_ovens{a} -1")]),
        ] {
            assert_eq!(lines(&text, name), expected);
        }
        assert_eq!(text.matches("# HELP flowbay_cakes Cakes that were baked\n").count(), 1);
        assert_eq!(text.matches("# TYPE flowbay_cakes counter\n").count(), 1);
        assert!(!text.contains("spoons"), "no node has it");
    }

    #[test]
    fn swaps_are_shown_by_plugin_and_result() {
        let swaps = PluginSwaps {
            generation: 3,
            done: 2,
            undone: 1,
            took: Duration::from_millis(1500),
            last_took: Duration::from_millis(500),
            last_held: Duration::from_millis(2),
            ..PluginSwaps::default()
        };
        let plugin = PluginFigures { name: "cakes".to_owned(), version: "1.0.0".to_owned(), swaps };
        let text = scrape(Figures { plugins: vec![plugin], ..Figures::default() });
        for line in [
            r#"flowbay_plugin_generation{plugin="cakes"} 3"#,
            r#"flowbay_swaps_total{plugin="cakes",result="done"} 2"#,
            r#"flowbay_swaps_total{plugin="cakes",result="undone"} 1"#,
            r#"flowbay_swap_seconds_total{plugin="cakes"} 1.5"#,
            r#"flowbay_swap_last_seconds{plugin="cakes"} 0.5"#,
            r#"flowbay_swap_held_seconds{plugin="cakes"} 0.002"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let mut hostile = node("a");
        hostile.name = "\"} 1\nflowbay_uptime_seconds 0\n\\".to_owned();
        hostile.mailbox = Some(MailboxFigures::default());
        let text = scrape(Figures { nodes: vec![hostile], ..Figures::default() });
        let escaped = r#"name="\"} 1\nflowbay_uptime_seconds 0\n\\"}"#;
        assert!(
            text.contains(&format!(r#"flowbay_mailbox_messages{{node="a",type="cake",{escaped} 0"#)),
            "{text}"
        );
        assert_eq!(lines(&text, "flowbay_uptime_seconds").len(), 1);
    }

    #[test]
    fn every_own_name_is_reserved_and_no_other() {
        let mut one = node("a");
        one.mailbox = Some(MailboxFigures::default());
        one.sessions = Some(SessionFigures::default());
        let text = scrape(Figures { nodes: vec![one], ..Figures::default() });
        let mut shown: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE flowbay_")?.split(' ').next()).collect();
        shown.sort_unstable();
        assert_eq!(shown, OWN);
    }

    /// It must not be a burden that somebody watches: a bound far above what it takes, also for a build that is not
    /// optimised, on a machine that has other things to do.
    #[test]
    fn ten_thousand_nodes_are_shown_in_a_moment() {
        let nodes = (0..10_000)
            .map(|n| {
                let mut node = node(&format!("{n:016x}"));
                node.mailbox = Some(MailboxFigures::default());
                node
            })
            .collect();
        let started = Instant::now();
        let text = scrape(Figures { nodes, ..Figures::default() });
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(lines(&text, "flowbay_mailbox_messages").len(), 10_000);
    }
}
