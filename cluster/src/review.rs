//! Who a bearer token is of, and whether they may read a page: the API server knows.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use tokio::time::timeout;

use crate::source::SourceError;
use crate::source::api::{self, Options};

/// The two questions have to be answered within this.
const LIMIT: Duration = Duration::from_secs(10);

/// What the API server says of a token and a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It knows no such token.
    Unknown,
    /// It knows whose it is, and they may not.
    Forbidden {
        /// Their name.
        user: String,
    },
    /// They may.
    Allowed,
}

/// The API server can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("the API server can't be asked: {0}")]
pub struct ReviewError(String);

/// Asks the API server. Needs the right to create TokenReviews and SubjectAccessReviews
/// (`system:auth-delegator`).
#[derive(Clone)]
pub struct Reviewer {
    client: kube::Client,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviewer")
    }
}

impl Reviewer {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// If kubeconfig, certificates, tokens or URL can't be read or make no sense.
    pub async fn new(options: &Options) -> Result<Self, SourceError> {
        let client = api::client(options).await?;
        Ok(Self { client })
    }

    /// Whether the holder of this token may `get` this path.
    ///
    /// # Errors
    /// When the API server does not answer both questions in time, or we may not ask them.
    pub async fn review(&self, token: &str, path: &str) -> Result<Verdict, ReviewError> {
        let asked = timeout(LIMIT, self.ask(token, path)).await;
        let asked = asked.map_err(|_| ReviewError("no answer in time".to_owned()))?;
        asked.map_err(|error| ReviewError(error.to_string()))
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Verdict, kube::Error> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let review = reviews.create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        let (Some(true), Some(user)) = (status.authenticated, status.user) else {
            return Ok(Verdict::Unknown);
        };
        let name = user.username.clone().unwrap_or_default();
        let accesses: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let access = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let access = accesses.create(&PostParams::default(), &access).await?;
        let may = access.status.is_some_and(|status| status.allowed);
        Ok(if may {
            Verdict::Allowed
        } else {
            Verdict::Forbidden { user: name }
        })
    }
}
