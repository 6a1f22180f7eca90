use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// The way of a plugin to end the process, for what must not go on (a forwarding loop). All
/// clones are one.
#[derive(Clone, Debug, Default)]
pub struct Fatal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    reason: OnceLock<String>,
    given: Notify,
}

impl Fatal {
    /// Asks for the end of the process with exit code 1. Only the first reason counts.
    pub fn end_process(&self, reason: String) {
        if self.0.reason.set(reason).is_ok() {
            self.0.given.notify_one();
        }
    }

    /// Waits for a reason to end the process. For one waiter: who runs the process.
    pub async fn reason(&self) -> &str {
        loop {
            if let Some(reason) = self.0.reason.get() {
                return reason;
            }
            self.0.given.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_ends_the_wait() {
        let fatal = Fatal::default();
        let plugin = fatal.clone();
        let waiting = tokio::spawn(async move { fatal.reason().await.to_owned() });
        tokio::task::yield_now().await;
        plugin.end_process("one".to_owned());
        plugin.end_process("other".to_owned());
        assert_eq!(waiting.await.unwrap(), "one");
        assert_eq!(plugin.reason().await, "one");
    }
}
