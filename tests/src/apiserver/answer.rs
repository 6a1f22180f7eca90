//! One request → one answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::page::Continue;
use super::resource::{RESOURCES, Resource};
use super::selector::Selectors;
use super::state::{Key, TooOld};
use super::stream::{Watching, stream};
use super::{Seen, Shared, lock, review};

/// A bigger object is refused.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who asks, as far as the connection tells.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    /// Has shown a certificate of ours.
    pub(super) certified: bool,
}

/// A request that is refused, as a `Status` object.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        })
    }
}

/// What a path names.
struct Target {
    resource: &'static Resource,
    namespace: Option<String>,
    name: Option<String>,
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: query(request.uri().query().unwrap_or_default()),
        version: format!("{:?}", request.version()),
    };
    shared.note(seen.clone());
    let answer = match decide(&shared, caller, &seen, request).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let code = StatusCode::from_u16(refusal.code);
            json_body(
                code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                &refusal.status(),
            )
        }
    };
    Ok(answer)
}

async fn decide(
    shared: &Arc<Shared>,
    caller: Caller,
    seen: &Seen,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    admit(shared, caller, &request)?;
    let missing = || {
        Refusal::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    };
    if request.method() == Method::POST && review::is_review(&seen.path) {
        return review::answer(shared, &seen.path, request).await;
    }
    let target = target(&seen.path).ok_or_else(missing)?;
    refuse(shared, target.resource)?;
    match (request.method(), &target.name) {
        (&Method::GET, None) if seen.is_watch() => watch(shared, &target, seen),
        (&Method::GET, None) => list(shared, &target, seen),
        (&Method::GET, Some(name)) => {
            let key = target.key(name);
            let object = lock(&shared.state).get(&key).cloned();
            object
                .map(|object| json_body(StatusCode::OK, &object))
                .ok_or_else(|| not_found(target.resource, name))
        }
        (&Method::POST, None) | (&Method::PUT | &Method::PATCH, Some(_)) => {
            put(shared, &target, request).await
        }
        (&Method::DELETE, Some(name)) => {
            let version = lock(&shared.state).delete(&target.key(name));
            let version = version.ok_or_else(|| not_found(target.resource, name))?;
            shared.newest.send_replace(version);
            let done =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
            Ok(json_body(StatusCode::OK, &done))
        }
        _ => Err(Refusal::new(
            405,
            "MethodNotAllowed",
            "the stand-in does not know this method here",
        )),
    }
}

fn admit(shared: &Shared, caller: Caller, request: &Request<Incoming>) -> Result<(), Refusal> {
    let tokens = lock(&shared.mood).tokens.clone();
    if tokens.is_empty() && !shared.settings.client_certificates {
        return Ok(());
    }
    let header = request.headers().get(AUTHORIZATION);
    let token = header
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let known = token.is_some_and(|token| tokens.iter().any(|known| known == token.trim()));
    if known || (caller.certified && shared.settings.client_certificates) {
        return Ok(());
    }
    Err(Refusal::new(401, "Unauthorized", "Unauthorized"))
}

fn refuse(shared: &Shared, resource: &Resource) -> Result<(), Refusal> {
    let status = lock(&shared.mood).refused.get(resource.plural).copied();
    match status {
        None => Ok(()),
        Some(403) => {
            let message = format!("{} is forbidden to this user", resource.plural);
            Err(Refusal::new(403, "Forbidden", message))
        }
        Some(404) => Err(Refusal::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )),
        Some(code) => Err(Refusal::new(
            code,
            "InternalError",
            "the stand-in was told to refuse",
        )),
    }
}

fn list(shared: &Shared, target: &Target, seen: &Seen) -> Result<Response<Body>, Refusal> {
    let selectors = selectors(seen)?;
    let parameter = |name: &str| seen.query.get(name).filter(|value| !value.is_empty());
    let next = parameter("continue").map(|token| Continue::from_token(token));
    let next = next
        .transpose()
        .map_err(|message| Refusal::new(400, "BadRequest", message))?;
    // A list from the cache ("0") is never paged.
    let from_cache = next.is_none() && parameter("resourceVersion").is_some_and(|at| at == "0");
    let limit = parameter("limit").and_then(|limit| limit.parse().ok());
    let limit: usize = limit
        .filter(|limit| *limit > 0 && !from_cache)
        .unwrap_or(usize::MAX);

    let state = lock(&shared.state);
    let version = next.as_ref().map_or(state.version(), |next| next.rv);
    let objects = state
        .at(target.resource, version)
        .map_err(|TooOld { .. }| {
            Refusal::new(
                410,
                "Expired",
                "the continue token is too old: begin the list again",
            )
        })?;
    drop(state);
    let mut rest = objects.iter().filter(|(path, object)| {
        next.as_ref().is_none_or(|next| next.is_before(path))
            && target.holds(object)
            && selectors.match_object(object)
    });
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let remaining = rest.count();
    let mut meta = json!({"resourceVersion": version.to_string()});
    if remaining > 0
        && let Some((last, _)) = page.last()
    {
        meta["continue"] = json!(Continue::after(version, last).to_token());
        if selectors.is_empty() {
            meta["remainingItemCount"] = json!(remaining);
        }
        if std::mem::take(&mut lock(&shared.mood).expire_next_page) {
            let mut state = lock(&shared.state);
            state.skip_to(version + 1);
            state.compact();
        }
    }
    let items: Vec<Value> = page.iter().map(|(_, object)| list_item(object)).collect();
    let list = json!({
        "kind": format!("{}List", target.resource.kind),
        "apiVersion": target.resource.api_version,
        "metadata": meta,
        "items": items,
    });
    Ok(json_body(StatusCode::OK, &list))
}

/// An object within a list does not say what it is.
fn list_item(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

fn watch(shared: &Arc<Shared>, target: &Target, seen: &Seen) -> Result<Response<Body>, Refusal> {
    let on = |name: &str| {
        seen.query
            .get(name)
            .is_some_and(|on| on == "1" || on == "true")
    };
    let ignored = lock(&shared.mood).ignores_watch_list;
    let initial = on("sendInitialEvents") && !ignored;
    if initial && lock(&shared.mood).no_watch_list {
        let message = "sendInitialEvents is forbidden: the WatchList feature is off";
        return Err(Refusal::new(422, "Invalid", message));
    }
    let version = seen.query.get("resourceVersion").map_or("", String::as_str);
    let version = match version {
        "" | "0" => None,
        text => Some(text.parse().map_err(|_| {
            Refusal::new(
                400,
                "BadRequest",
                format!("Invalid value: \"{text}\": resourceVersion"),
            )
        })?),
    };
    let watching = Watching {
        shared: Arc::clone(shared),
        resource: target.resource,
        namespace: target.namespace.clone(),
        selectors: selectors(seen)?,
        since: version.filter(|_| !initial),
        ends_list: initial,
        bookmarks: on("allowWatchBookmarks"),
        seconds: seen
            .query
            .get("timeoutSeconds")
            .and_then(|text| text.parse().ok()),
    };
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header("cache-control", "no-cache, private");
    Ok(response.body(stream(watching)).unwrap_or_default())
}

async fn put(
    shared: &Shared,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let creates = request.method() == Method::POST;
    let bad = |message: String| Refusal::new(400, "BadRequest", message);
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    let mut object: Value =
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    if !object["metadata"].is_object() {
        return Err(bad("an object needs metadata".to_owned()));
    }
    if let Some(namespace) = &target.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if let Some(name) = &target.name {
        object["metadata"]["name"] = json!(name);
    }
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() {
        return Err(bad("an object needs metadata.name".to_owned()));
    }
    let key = target.key(&name);
    let mut state = lock(&shared.state);
    let existed = state.get(&key).is_some();
    if creates && existed {
        let message = format!("{} \"{name}\" already exists", target.resource.plural);
        return Err(Refusal::new(409, "AlreadyExists", message));
    }
    let version = state.set(target.resource, object);
    let stored = state.get(&key).cloned().unwrap_or_default();
    drop(state);
    shared.newest.send_replace(version);
    let code = if existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(json_body(code, &stored))
}

fn selectors(seen: &Seen) -> Result<Selectors, Refusal> {
    let parameter = |name: &str| seen.query.get(name).map_or("", String::as_str);
    let (labels, fields) = (parameter("labelSelector"), parameter("fieldSelector"));
    Selectors::read(labels, fields).ok_or_else(|| {
        let message = format!("the stand-in can't read these selectors: {labels} {fields}");
        Refusal::new(400, "BadRequest", message)
    })
}

fn not_found(resource: &Resource, name: &str) -> Refusal {
    let message = format!("{} \"{name}\" not found", resource.plural);
    Refusal::new(404, "NotFound", message)
}

impl Target {
    fn key(&self, name: &str) -> Key {
        Key::new(
            self.resource,
            self.namespace.as_deref().unwrap_or("default"),
            name,
        )
    }

    fn holds(&self, object: &Value) -> bool {
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
    }
}

fn target(path: &str) -> Option<Target> {
    let found = |resource: &'static Resource| {
        let rest = path.strip_prefix(resource.root)?;
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let (namespace, name) = match parts.as_slice() {
            [plural] if *plural == resource.plural => (None, None),
            [plural, name] if *plural == resource.plural && !resource.namespaced => {
                (None, Some(*name))
            }
            ["namespaces", namespace, plural] if *plural == resource.plural => {
                (Some(*namespace), None)
            }
            ["namespaces", namespace, plural, name] if *plural == resource.plural => {
                (Some(*namespace), Some(*name))
            }
            _ => return None,
        };
        Some(Target {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    };
    RESOURCES.iter().find_map(found)
}

fn query(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

pub(super) fn json_body(code: StatusCode, value: &Value) -> Response<Body> {
    let mut text = value.to_string();
    text.push('\n');
    let body = Full::new(Bytes::from(text)).boxed_unsync();
    let response = Response::builder()
        .status(code)
        .header(CONTENT_TYPE, "application/json")
        .header("cache-control", "no-cache, private");
    response.body(body).unwrap_or_default()
}
