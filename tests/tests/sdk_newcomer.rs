//! The path of somebody who writes a first plugin.
