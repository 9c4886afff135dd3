//! How far a writer has come, for those who ask, wait or listen.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use slatedb::wal::{WalError, WalEvent, WalObserver, WalStatus, WalStatusListener};
use tokio::sync::{Notify, watch};

use crate::pending::{File, Pending};
use crate::usage::Usage;

/// What a writer and the task that writes for it share.
pub(crate) struct Progress {
    state: Mutex<State>,
    /// There is something to write, or an end to be made.
    pub(crate) work: Notify,
    /// The id of the last durable file, or why no more will be.
    durable: watch::Sender<Result<u64, WalError>>,
}

pub(crate) struct State {
    pub(crate) pending: Pending,
    pub(crate) usage: Usage,
    /// No more is to be written.
    pub(crate) ending: bool,
    writing_bytes: usize,
    writing_rows: usize,
    last_id: u64,
    last_seq: Option<u64>,
    closed: Option<WalError>,
    listeners: Vec<WalStatusListener>,
}

impl State {
    /// What is written next, now on its way; empty if there is nothing.
    pub(crate) fn take(&mut self, records: usize) -> Vec<File> {
        let files = self.pending.take(records);
        self.writing_bytes += files.iter().map(File::len_bytes).sum::<usize>();
        self.writing_rows += files.iter().map(|file| file.row_count).sum::<usize>();
        files
    }

    /// Why nothing more is taken, if so.
    pub(crate) fn check_open(&self) -> Result<(), WalError> {
        match (&self.closed, self.ending) {
            (Some(reason), _) => Err(reason.clone()),
            (None, true) => Err(WalError::Closed),
            (None, false) => Ok(()),
        }
    }

    fn status(&self) -> WalStatus {
        WalStatus {
            closed_reason: self.closed.clone(),
            estimated_bytes: self.pending.len_bytes() + self.writing_bytes,
            last_flushed_wal_id: self.last_id,
            last_flushed_seq: self.last_seq,
            buffered_wal_entries_count: self.pending.row_count() + self.writing_rows,
        }
    }
}

impl Progress {
    /// A writer's, of which file `last_id` is durable.
    pub(crate) fn new(pending: Pending, usage: Usage, last_id: u64) -> Self {
        Self {
            state: Mutex::new(State {
                pending,
                usage,
                ending: false,
                writing_bytes: 0,
                writing_rows: 0,
                last_id,
                last_seq: None,
                closed: None,
                listeners: Vec::new(),
            }),
            work: Notify::new(),
            durable: watch::Sender::new(Ok(last_id)),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; what is under it is whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the task end when it has done what it is at.
    pub(crate) fn end(&self) {
        self.state().ending = true;
        self.work.notify_one();
    }

    /// Files have become durable, in the order in which they were taken.
    pub(crate) fn written(&self, files: &[File], bytes: impl Fn(&File) -> u64) {
        let Some(last) = files.last() else { return };
        let (status, listeners) = {
            let mut state = self.state();
            for file in files {
                state.writing_bytes -= file.len_bytes();
                state.writing_rows -= file.row_count;
                state.usage.add(file.id(), bytes(file));
            }
            state.last_id = last.id();
            state.last_seq = Some(last.last_seq);
            (state.status(), state.listeners.clone())
        };
        let _ = self.durable.send_replace(Ok(last.id()));
        for listener in listeners {
            listener(WalEvent::WalFlushed(status.clone()));
        }
    }

    /// The end, the first time that it is said. Nothing becomes durable afterwards.
    pub(crate) fn close(&self, reason: WalError) {
        let (status, listeners) = {
            let mut state = self.state();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(reason.clone());
            (state.status(), std::mem::take(&mut state.listeners))
        };
        let _ = self.durable.send_replace(Err(reason));
        for listener in listeners {
            listener(WalEvent::WalClosed(status.clone()));
        }
    }

    /// Waits until file `id` is durable, or never will be.
    pub(crate) async fn wait(&self, id: u64) -> Result<(), WalError> {
        let mut durable = self.durable.subscribe();
        let reached = durable
            .wait_for(|durable| durable.as_ref().map_or(true, |&durable| durable >= id))
            .await;
        match reached.as_deref() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(reason.clone()),
            Err(_) => Err(WalError::Closed),
        }
    }

    pub(crate) fn status(&self) -> Result<WalStatus, WalStatus> {
        let status = self.state().status();
        match status.closed_reason {
            None => Ok(status),
            Some(_) => Err(status),
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// SlateDB's view of a writer.
#[derive(Debug, Clone)]
pub(crate) struct Observer(pub(crate) std::sync::Arc<Progress>);

#[async_trait]
impl WalObserver for Observer {
    fn status(&self) -> Result<WalStatus, WalStatus> {
        self.0.status()
    }

    fn subscribe(&self, listener: WalStatusListener) -> Result<(), WalError> {
        let closed = {
            let mut state = self.0.state();
            match state.closed {
                None => {
                    state.listeners.push(listener);
                    return Ok(());
                }
                Some(_) => state.status(),
            }
        };
        listener(WalEvent::WalClosed(closed));
        Ok(())
    }
}
