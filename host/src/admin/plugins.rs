//! `GET /plugins` and `POST /plugins/reload`.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::turn::Turn;
use crate::{
    http::{Access, BoxFuture, Handler, HttpRequest, HttpResponse, RouteTaken, Routes},
    loader::PluginFiles,
    plugin::{self, PluginInfo},
    registry::Registry,
    runtime::Runtime,
};

/// What the handlers need.
struct Plugins {
    registry: Arc<Registry>,
    files: PluginFiles,
    runtime: Runtime,
    /// Looking at all files takes a moment. Who asks again and again has it done no more than once at a time.
    turn: Turn,
}

/// Adds the routes.
///
/// # Errors
/// A path is taken, which cannot be before nodes start.
pub fn add_routes(
    routes: &Routes,
    registry: Arc<Registry>,
    files: PluginFiles,
    runtime: Runtime,
) -> Result<(), RouteTaken> {
    let plugins = Arc::new(Plugins { registry, files, runtime, turn: Turn::default() });
    let listing = plugins.clone();
    let list = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
        let response = super::json(StatusCode::OK, &listing.list());
        Box::pin(async move { response })
    };
    let reload = move |_: HttpRequest| -> BoxFuture<HttpResponse> {
        let plugins = plugins.clone();
        Box::pin(async move {
            let turn = plugins.turn.wait().await;
            let (sender, done) = tokio::sync::oneshot::channel();
            plugins.runtime.reload(move || {
                drop(turn);
                let _ = sender.send(());
            });
            match done.await {
                Ok(()) => super::json(StatusCode::OK, &plugins.list()),
                Err(_) => super::error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the host is stopping"),
            }
        })
    };
    routes.add(super::OWNER, "/plugins", Handler::Request(Access::Admin, Method::GET, Arc::new(list)))?;
    routes.add(
        super::OWNER,
        "/plugins/reload",
        Handler::Request(Access::Admin, Method::POST, Arc::new(reload)),
    )?;
    Ok(())
}

/// A plugin as an object: `file`, `name`, `version`, `sdk`, `abi`, `rustc`, `types`.
pub fn describe(info: &PluginInfo) -> Value {
    let types: Vec<&str> = info.types.iter().map(|node_type| node_type.name.as_str()).collect();
    json!({
        "file": info.file.display().to_string(),
        "name": info.name,
        "version": info.version,
        "sdk": info.sdk,
        "abi": info.abi,
        "rustc": info.rustc,
        "types": types,
    })
}

impl Plugins {
    /// Plugins in use, files that are refused or not needed, and how many generations are in memory.
    fn list(&self) -> Value {
        let files = self.files.all();
        let in_use: Vec<Value> = self
            .registry
            .plugins()
            .iter()
            .map(|plugin| {
                let mut description = describe(plugin.info());
                let state = files.get(&plugin.info().file);
                description["refused"] = json!(state.and_then(|state| state.refused.clone()));
                description
            })
            .collect();
        let refused: Vec<Value> = files
            .iter()
            .filter_map(|(file, state)| {
                let reason = state.refused.as_ref()?;
                Some(json!({ "file": file.display().to_string(), "reason": reason }))
            })
            .collect();
        let overridden: Vec<Value> = files
            .iter()
            .filter_map(|(file, state)| {
                let by = state.overridden.as_ref()?;
                Some(json!({ "file": file.display().to_string(), "by": by.display().to_string() }))
            })
            .collect();
        json!({
            "plugins": in_use,
            "refused": refused,
            "overridden": overridden,
            "generations": plugin::live_generations(),
        })
    }
}
