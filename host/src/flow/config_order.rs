//! The order in which the config nodes of one scope start: the file's, except that a node comes after those that it
//! refers to.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Properties that place a node; whatever they hold, they are no references to config nodes.
const PLACING: [&str; 8] = ["id", "type", "z", "g", "d", "x", "y", "wires"];

/// Ids that the properties of a node may refer to: every top-level property that is a string, `name` included.
pub(super) fn references(config: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let others = config.iter().filter(|(key, _)| !PLACING.contains(&key.as_str()));
    others.filter_map(|(_, value)| value.as_str())
}

/// Result of [`start_order`]; the numbers are places in the list it was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StartOrder {
    /// Nodes in the order in which they start.
    pub(super) order: Vec<usize>,
    /// Circles of nodes that refer to one another, or a node that refers to itself. None of these can start.
    pub(super) circles: Vec<Vec<usize>>,
}

/// Orders the config nodes of one scope, given as id and configuration in file order.
///
/// Node-RED takes nodes from a queue and moves one to the back while it refers to a node that is still waiting. So a
/// node starts in the first pass over the queue in which all that it refers to has started before it: one pass later
/// than a node that stands behind it, the same pass as one in front. Working the pass out instead of going through
/// the queue keeps a long chain in the wrong order linear.
pub(super) fn start_order(nodes: &[(&str, &Map<String, Value>)]) -> StartOrder {
    let places: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
    let needs: Vec<Vec<usize>> = nodes
        .iter()
        .map(|(_, config)| references(config).filter_map(|id| places.get(id).copied()).collect())
        .collect();

    let mut passes: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut circles = Vec::new();
    for mut component in components(&needs) {
        match component[..] {
            [node] if !needs[node].contains(&node) => {
                // What a node needs is in a component before its own; members of circles have no pass.
                let after = |&other: &usize| passes[other].map(|pass| pass + usize::from(other > node));
                passes[node] = Some(needs[node].iter().filter_map(after).max().unwrap_or(0));
            }
            _ => {
                component.sort_unstable();
                circles.push(component);
            }
        }
    }
    circles.sort();
    let mut order: Vec<usize> = (0..nodes.len()).filter(|&node| passes[node].is_some()).collect();
    order.sort_by_key(|&node| (passes[node], node));
    StartOrder { order, circles }
}

/// Strongly connected components of the graph `needs`, each after those that it needs (Tarjan's algorithm, with an
/// explicit stack since a chain may be as long as the file).
fn components(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut number = vec![UNSEEN; needs.len()];
    let mut lowest = vec![0; needs.len()];
    let mut open = vec![false; needs.len()];
    let mut pending = Vec::new();
    let mut found = Vec::new();
    let mut counter = 0;
    for root in 0..needs.len() {
        if number[root] != UNSEEN {
            continue;
        }
        let mut walk = vec![(root, 0)];
        while let Some((node, next)) = walk.pop() {
            if next == 0 {
                number[node] = counter;
                lowest[node] = counter;
                counter += 1;
                pending.push(node);
                open[node] = true;
            }
            if let Some(&other) = needs[node].get(next) {
                walk.push((node, next + 1));
                if number[other] == UNSEEN {
                    walk.push((other, 0));
                } else if open[other] {
                    lowest[node] = lowest[node].min(number[other]);
                }
                continue;
            }
            if let Some(&(parent, _)) = walk.last() {
                lowest[parent] = lowest[parent].min(lowest[node]);
            }
            if lowest[node] == number[node] {
                let mut component = Vec::new();
                while let Some(member) = pending.pop() {
                    open[member] = false;
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                found.push(component);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check(["a b", "c"], "ca", &["b"])`: node a refers to b, node c to nothing.
    fn check(nodes: &[&str], order: &[&str], circles: &[&[&str]]) {
        let nodes: Vec<(&str, Map<String, Value>)> = nodes
            .iter()
            .map(|line| {
                let mut words = line.split(' ');
                let id = words.next().unwrap();
                let config =
                    words.enumerate().map(|(at, word)| (format!("p{at}"), Value::from(word))).collect();
                (id, config)
            })
            .collect();
        let given: Vec<_> = nodes.iter().map(|(id, config)| (*id, config)).collect();
        let found = start_order(&given);
        let names = |list: &[usize]| list.iter().map(|&node| given[node].0).collect::<Vec<_>>();
        assert_eq!(names(&found.order), order);
        assert_eq!(found.circles.iter().map(|circle| names(circle)).collect::<Vec<_>>(), circles);
    }

    #[test]
    fn config_nodes_start_in_file_order_when_they_refer_backwards_or_to_nothing() {
        check(&["a", "b a", "c nowhere"], &["a", "b", "c"], &[]);
    }

    #[test]
    fn a_config_node_that_refers_forward_goes_to_the_back_of_the_queue() {
        check(&["a b", "b", "c"], &["b", "c", "a"], &[]);
        check(&["a b", "b c", "c", "d a"], &["c", "b", "a", "d"], &[]);
        check(&["a d", "b c", "c", "d"], &["c", "d", "a", "b"], &[]);
    }

    #[test]
    fn nodes_in_a_circle_are_left_out_and_those_that_refer_to_them_start() {
        check(&["a b", "b c", "c a", "d a", "e"], &["d", "e"], &[&["a", "b", "c"]]);
        check(&["a a", "b"], &["b"], &[&["a"]]);
    }

    #[test]
    fn a_chain_in_the_wrong_order_as_long_as_a_large_file_is_ordered_at_once() {
        let configs: Vec<(String, Map<String, Value>)> = (0..200_000)
            .map(|n| (n.to_string(), Map::from_iter([("next".to_owned(), Value::from((n + 1).to_string()))])))
            .collect();
        let given: Vec<_> = configs.iter().map(|(id, config)| (id.as_str(), config)).collect();
        let found = start_order(&given);
        assert_eq!(found.order.len(), 200_000);
        assert_eq!(found.order[0], 199_999);
        assert_eq!(found.circles.len(), 0);
    }
}
