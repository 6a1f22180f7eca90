//! TokenReviews and SubjectAccessReviews, of tokens that a test made known.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{Body, MAX_BODY_BYTES, Refusal, json_body};
use super::{Shared, lock};

const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESSES: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Whose a token is, and what they may read.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) token: String,
    pub(super) user: String,
    pub(super) paths: Vec<String>,
}

/// Whether this path is for reviews.
pub(super) fn is_review(path: &str) -> bool {
    path == TOKENS || path == ACCESSES
}

pub(super) async fn answer(
    shared: &Shared,
    path: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let bad = |message: String| Refusal::new(400, "BadRequest", message);
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES);
    let body = body.collect().await;
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    let mut review: Value =
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let holders = lock(&shared.mood).holders.clone();
    let spec = review["spec"].clone();
    review["status"] = if path == TOKENS {
        let holder = holders.iter().find(|holder| spec["token"] == *holder.token);
        match holder {
            Some(holder) => json!({
                "authenticated": true,
                "user": {"username": holder.user, "groups": ["system:authenticated"]},
            }),
            None => json!({"authenticated": false}),
        }
    } else {
        let attributes = &spec["nonResourceAttributes"];
        let may = |holder: &Holder| {
            let reads = |path: &String| attributes["path"] == **path;
            spec["user"] == *holder.user && holder.paths.iter().any(reads)
        };
        let allowed = attributes["verb"] == "get" && holders.iter().any(may);
        json!({"allowed": allowed})
    };
    Ok(json_body(StatusCode::CREATED, &review))
}
