//! Supervision: every long-lived task of a node is started here.
//!
//! Owns the set of running tasks, the order to stop, and what a panic means: a panic in a task
//! that the node can't live without ends the node with a clear error; a panic in a feed's task
//! closes that feed, which the overlay then replaces. Does not own what the tasks do.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::error::NodeError;

/// The task that drives the swarm and the overlay.
pub const OVERLAY: &str = "overlay";
/// The task that drives the relay.
pub const MEDIA: &str = "media";
/// The task that reads one feed.
pub const FEED_READER: &str = "feed-reader";
/// The task that writes one feed.
pub const FEED_WRITER: &str = "feed-writer";
/// The task that greets at the begin of one feed.
pub const FEED_HANDSHAKE: &str = "feed-handshake";

/// What `work` comes to, or with which message it panicked: for work whose owner lives on and tells.
///
/// # Errors
/// The panic's message.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panic_message(&*panic))
}

/// The tasks of one node. Clones are handles to the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    failure: Mutex<Option<NodeError>>,
    panic_in: Option<String>,
    panicked: AtomicBool,
}

impl Tasks {
    /// An empty set; `panic_in` names the task that panics once, for tests of this very file.
    #[must_use]
    pub fn new(panic_in: Option<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                kill: CancellationToken::new(),
                failure: Mutex::new(None),
                panic_in,
                panicked: AtomicBool::new(false),
            }),
        }
    }

    /// Starts a task that the node can't live without: its panic, or its end before the node was
    /// told to stop, ends the node.
    pub fn spawn_vital(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.inner.tracker.spawn(async move {
            match caught(tasks.unless_killed(task)).await {
                Ok(()) if tasks.is_stopping() => {}
                Ok(()) => tasks.fail(NodeError::TaskEnded { task: name }),
                Err(message) => tasks.fail(NodeError::TaskPanicked { task: name, message }),
            }
        });
    }

    /// Starts a task whose death the node survives; `after` runs when it ended, with whether it
    /// panicked, so that whoever depends on it hears of it.
    pub fn spawn<A>(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        after: impl FnOnce(bool) -> A + Send + 'static,
    ) where
        A: Future<Output = ()> + Send,
    {
        let tasks = self.clone();
        self.inner.tracker.spawn(async move {
            let outcome = caught(tasks.unless_killed(task)).await;
            if let Err(message) = &outcome {
                tracing::error!(task = name, message, "task panicked");
            }
            after(outcome.is_err()).await;
        });
    }

    /// Panics when the test hook names this task and has not struck yet.
    ///
    /// # Panics
    /// On purpose, at most once per node.
    pub fn panic_point(&self, name: &'static str) {
        if self.inner.panic_in.as_deref() == Some(name)
            && !self.inner.panicked.swap(true, Ordering::Relaxed)
        {
            panic!("injected into task '{name}'");
        }
    }

    /// The task that the test hook names.
    pub(super) fn panic_in(&self) -> Option<String> {
        self.inner.panic_in.clone()
    }

    /// Tells every task to end.
    pub fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.close();
    }

    async fn unless_killed(&self, task: impl Future<Output = ()>) {
        tokio::select! {
            () = task => {}
            () = self.inner.kill.cancelled() => {}
        }
    }

    /// Drops every task where it is, as if the process had been killed: no last words.
    #[cfg(test)]
    pub fn kill(&self) {
        self.inner.kill.cancel();
        self.stop();
    }

    /// Whether the tasks were told to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// Resolves when the tasks are told to end.
    pub async fn stopping(&self) {
        self.inner.stop.cancelled().await;
    }

    /// A token that ends with the node, or before it, for one task's own use.
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        self.inner.stop.child_token()
    }

    /// Resolves when every task has ended after [`Self::stop`].
    pub async fn wait(&self) {
        self.inner.tracker.wait().await;
    }

    /// Why the node ended, when it was not told to.
    #[must_use]
    pub fn failure(&self) -> Option<NodeError> {
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, error: NodeError) {
        tracing::error!(%error, "the node ends");
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_vital_task_stops_all_and_names_it() {
        let tasks = Tasks::new(Some(MEDIA.to_owned()));
        let other = tasks.clone();
        tasks.spawn_vital(OVERLAY, async move { other.stopping().await });
        let victim = tasks.clone();
        tasks.spawn_vital(MEDIA, async move { victim.panic_point(MEDIA) });
        tasks.stopping().await;
        tasks.wait().await;
        assert!(matches!(tasks.failure(), Some(NodeError::TaskPanicked { task: MEDIA, .. })));
    }

    #[tokio::test]
    async fn a_panic_in_a_feed_task_is_told_and_survived() {
        let tasks = Tasks::new(Some(FEED_READER.to_owned()));
        let (told, heard) = tokio::sync::oneshot::channel();
        let victim = tasks.clone();
        let task = async move { victim.panic_point(FEED_READER) };
        tasks.spawn(FEED_READER, task, |panicked| async move {
            told.send(panicked).expect("the test listens");
        });
        assert_eq!(heard.await, Ok(true));
        assert!(!tasks.is_stopping());
    }
}
