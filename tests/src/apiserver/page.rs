//! Continue tokens.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

/// Where the next page of a list begins, and at which version the list was begun.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Continue {
    v: String,
    pub(super) rv: u64,
    /// The path of the last object handed out, and a zero byte: the first path after it.
    start: String,
}

impl Continue {
    pub(super) fn after(version: u64, path: &str) -> Self {
        Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: version,
            start: format!("{path}\0"),
        }
    }

    pub(super) fn to_token(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        BASE64URL_NOPAD.encode(text.as_bytes())
    }

    /// # Errors
    /// What is wrong with a token, as the real server puts it.
    pub(super) fn from_token(token: &str) -> Result<Self, String> {
        let wrong =
            |cause: String| format!("invalid continue token: continue key is not valid: {cause}");
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|error| {
            // Counted as the real one does: up to the last whole group of four.
            let at = error.position / 4 * 4;
            wrong(format!("illegal base64 data at input byte {at}"))
        })?;
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
    }

    /// Whether an object comes after those handed out.
    pub(super) fn is_before(&self, path: &str) -> bool {
        self.start.as_str() <= path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_recorded_pages() {
        let token =
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjI4LCJzdGFydCI6Ii9kZWZhdWx0L3MwXHUwMDAwIn0";
        let next = Continue::after(228, "/default/s0");
        assert_eq!(next.to_token(), token);
        assert_eq!(Continue::from_token(token), Ok(next));
    }

    #[test]
    fn pages_go_on_right_after_the_last_object() {
        let next = Continue::after(1, "/default/s0");
        assert!(!next.is_before("/default/kubernetes"));
        assert!(!next.is_before("/default/s0"));
        assert!(next.is_before("/default/s00"));
        assert!(next.is_before("/default/s1"));
    }
}
