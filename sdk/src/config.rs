//! Node configuration: structs by serde, and help with Node-RED's loosely typed properties.

use flowbay_abi::value::Value;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// The configuration of a node type that has none; whatever the flow file holds is accepted.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoConfig;

impl<'de> Deserialize<'de> for NoConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| NoConfig)
    }
}

/// The node's object from the flow file as it is, for types whose properties no struct can name.
#[derive(Debug, Clone)]
pub struct AnyConfig(pub Value);

impl<'de> Deserialize<'de> for AnyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(AnyConfig)
    }
}

/// For `#[serde(deserialize_with = "lenient::…")]`: Node-RED's forms write numbers as strings and leave fields empty.
pub mod lenient {
    use super::*;

    /// A number, also from a string; `None` from an empty string, null or anything else.
    pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Str(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        }
        .filter(|number| number.is_finite()))
    }

    /// A boolean, also from `"true"` and `"false"`; false from anything else.
    pub fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Bool(flag) => flag,
            Value::Str(text) => &*text == "true",
            _ => false,
        })
    }

    /// A string, also from a number or a boolean as JavaScript prints it; empty from null.
    pub fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => String::new(),
            Value::Str(text) => text.to_string(),
            other => other.to_js_string(),
        })
    }
}
