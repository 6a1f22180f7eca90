//! Who may read the metrics server's pages.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use sha2::{Digest, Sha256};
use switchyard_cluster::review::{Reviewer, Verdict};
use switchyard_operation::http::{Asked, Reply, TEXT};
use tokio::sync::Semaphore;

/// How long the API server's consent is remembered.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
/// How long its refusal is.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Verdicts that are remembered.
const VERDICTS_MAX: usize = 1024;
/// Tokens that the API server is asked about at a time.
const QUESTIONS_MAX: usize = 4;
/// The file with tokens is looked at this often at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of the file with tokens.
const TOKENS_MAX: usize = 65_536;

/// What stands for a token, and for one with a path: the text itself is not kept.
type Hash = [u8; 32];

/// Lets in who has a token that a file has, or that the API server lets read the page. With
/// neither it lets in everybody.
#[derive(Debug, Default)]
pub struct Access {
    tokens: Option<TokenFile>,
    reviewer: Option<Reviewed>,
}

/// Why a file of tokens can't be used.
#[derive(Debug, thiserror::Error)]
#[error("a file with a bearer token in each line ({0})")]
pub struct TokensError(String);

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    current: Mutex<(Vec<Hash>, Instant)>,
}

#[derive(Debug)]
struct Reviewed {
    reviewer: Reviewer,
    questions: Semaphore,
    verdicts: Mutex<HashMap<Hash, (Verdict, Instant)>>,
}

impl Access {
    /// By a file with a token in each line, and by the API server.
    ///
    /// # Errors
    /// The file can't be read or has no token.
    pub fn new(tokens: Option<&Path>, reviewer: Option<Reviewer>) -> Result<Self, TokensError> {
        let tokens = tokens.map(|path| {
            let read = read_tokens(path)?;
            Ok(TokenFile {
                path: path.to_owned(),
                current: Mutex::new((read, Instant::now())),
            })
        });
        Ok(Self {
            tokens: tokens.transpose()?,
            reviewer: reviewer.map(|reviewer| Reviewed {
                reviewer,
                questions: Semaphore::new(QUESTIONS_MAX),
                verdicts: Mutex::default(),
            }),
        })
    }

    /// What is answered in place of the page; `None` where they may read it.
    pub async fn refusal(&self, asked: &Asked) -> Option<Reply> {
        if self.tokens.is_none() && self.reviewer.is_none() {
            return None;
        }
        let Some(token) = &asked.bearer else {
            return Some(unauthorized());
        };
        let known = |file: &TokenFile| file.has(&hash(&[token]));
        if self.tokens.as_ref().is_some_and(known) {
            return None;
        }
        match &self.reviewer {
            Some(reviewed) => reviewed.refusal(token, &asked.path).await,
            None => Some(unauthorized()),
        }
    }
}

impl TokenFile {
    /// Whether it has a token. One that makes no sense any more leaves the last ones valid.
    fn has(&self, token: &Hash) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() >= LOOK_EVERY {
            current.1 = Instant::now();
            match read_tokens(&self.path) {
                Ok(tokens) => current.0 = tokens,
                Err(error) => tracing::warn!(
                    file = %self.path.display(),
                    "expected {error}: the tokens read before stay valid"
                ),
            }
        }
        current.0.contains(token)
    }
}

impl Reviewed {
    async fn refusal(&self, token: &str, path: &str) -> Option<Reply> {
        let key = hash(&[token, path]);
        if let Some(verdict) = self.remembered(&key) {
            return reply(&verdict, path);
        }
        let Ok(_turn) = self.questions.acquire().await else {
            return Some(unavailable("shutting down"));
        };
        // Somebody may have asked meanwhile.
        let verdict = match self.remembered(&key) {
            Some(verdict) => verdict,
            None => match self.reviewer.review(token, path).await {
                Ok(verdict) => {
                    self.remember(key, verdict.clone());
                    verdict
                }
                Err(error) => {
                    tracing::warn!(%error, "nobody can be let in to the metrics");
                    return Some(unavailable(&error.to_string()));
                }
            },
        };
        reply(&verdict, path)
    }

    fn remembered(&self, key: &Hash) -> Option<Verdict> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, until) = verdicts.get(key)?;
        (Instant::now() < *until).then(|| verdict.clone())
    }

    fn remember(&self, key: Hash, verdict: Verdict) {
        let lasts = match verdict {
            Verdict::Allowed => ALLOWED_FOR,
            Verdict::Unknown | Verdict::Forbidden { .. } => REFUSED_FOR,
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.retain(|_, (_, until)| now < *until);
        }
        // Full of what still holds: whoever fills it with wrong tokens gains nothing by that.
        if verdicts.len() < VERDICTS_MAX {
            verdicts.insert(key, (verdict, now + lasts));
        }
    }
}

fn reply(verdict: &Verdict, path: &str) -> Option<Reply> {
    match verdict {
        Verdict::Allowed => None,
        Verdict::Unknown => Some(unauthorized()),
        Verdict::Forbidden { user } => Some(Reply::new(
            StatusCode::FORBIDDEN,
            TEXT,
            format!("Forbidden (user={user}, verb=get, path={path})\n"),
        )),
    }
}

fn unauthorized() -> Reply {
    let text = "Unauthorized: expected a bearer token\n".to_owned();
    let mut reply = Reply::new(StatusCode::UNAUTHORIZED, TEXT, text);
    let scheme = HeaderValue::from_static("Bearer");
    reply.headers.push((WWW_AUTHENTICATE, scheme));
    reply
}

fn unavailable(why: &str) -> Reply {
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n"))
}

fn hash(parts: &[&str]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]); // in neither a token nor a path
    }
    hash.finalize().into()
}

fn read_tokens(path: &Path) -> Result<Vec<Hash>, TokensError> {
    let text = fs::read_to_string(path).map_err(|error| TokensError(error.to_string()))?;
    if text.len() > TOKENS_MAX {
        return Err(TokensError(format!("more than {TOKENS_MAX} bytes")));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<Hash> = lines.map(|token| hash(&[token])).collect();
    if tokens.is_empty() {
        return Err(TokensError("there is none in it".to_owned()));
    }
    Ok(tokens)
}
