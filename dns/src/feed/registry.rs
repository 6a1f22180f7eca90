use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Feed, FeedSpec};

/// Every feed that somebody holds, by what it follows.
#[derive(Debug, Default)]
pub struct Feeds {
    feeds: Mutex<HashMap<FeedSpec, Weak<Feed>>>,
}

impl Feeds {
    /// The feed of this spec: the one that there is, or a new one that has not
    /// [started](Feed::start).
    #[must_use]
    pub fn feed(&self, spec: &FeedSpec) -> Arc<Feed> {
        super::metrics::register();
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(spec).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed::new(spec.clone()));
        feeds.insert(spec.clone(), Arc::downgrade(&feed));
        feed
    }
}
