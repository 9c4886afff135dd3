//! What a device and its platform announce while it runs.
//!
//! Announcements are rare and the request path must not pay for them, so a thread waits for them.
//! It counts; whoever owns a queue compares one number, and looks closer when it has changed.

use std::{
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use vmm_sys_util::epoll::Epoll;

use crate::{Error, ErrorKind, EventFd, Notice, PciFunction, Result, event};

/// What is called after each announcement.
type Hook = Box<dyn Fn() + Send + Sync>;

/// What has been announced so far.
#[derive(Default)]
pub(super) struct Notices {
    /// Changes with each announcement.
    count: AtomicU32,
    config_changes: AtomicU32,
    is_wanted_back: AtomicBool,
    has_bus_error: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Notices {
    /// A number that changes with each announcement.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        // Acquire: what was announced is seen with the number. Pairs with `raise`.
        self.count.load(Ordering::Acquire)
    }

    /// How often the device has announced a change of its configuration or its status.
    pub(super) fn config_changes(&self) -> u32 {
        self.config_changes.load(Ordering::Relaxed)
    }

    /// Why the function cannot be used any more, if it cannot.
    pub(super) fn ending(&self) -> Option<&'static str> {
        if self.is_wanted_back.load(Ordering::Relaxed) {
            Some("is being unplugged or given to another driver")
        } else if self.has_bus_error.load(Ordering::Relaxed) {
            Some("has reported a bus error that cannot be corrected")
        } else {
            None
        }
    }

    pub(super) fn add_hook(&self, hook: Hook) {
        self.hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(hook);
    }

    /// Lets everybody look closer.
    pub(super) fn raise(&self) {
        self.count.fetch_add(1, Ordering::Release);
        for hook in &*self.hooks.lock().unwrap_or_else(PoisonError::into_inner) {
            hook();
        }
    }
}

/// An event and what it stands for.
pub(super) struct Source {
    pub(super) event: EventFd,
    pub(super) meaning: Meaning,
}

/// What an event stands for.
pub(super) enum Meaning {
    /// The configuration or the status may have changed; and any of these queues, whose vector it
    /// shares, may have something.
    Vector {
        is_config: bool,
        queues: Vec<EventFd>,
    },
    Notice(Notice),
}

impl Source {
    /// What the platform announces of `function`.
    pub(super) fn of_platform(function: &dyn PciFunction) -> Result<Vec<Self>> {
        let mut sources = Vec::new();
        for notice in [Notice::ReleaseRequest, Notice::BusError] {
            let event = event::new()?;
            if function.notify(notice, Some(&event))? {
                let meaning = Meaning::Notice(notice);
                sources.push(Self { event, meaning });
            }
        }
        Ok(sources)
    }

    /// Takes the event; true if it is an announcement.
    fn take(&self, notices: &Notices) -> bool {
        if self.event.read().is_err() {
            return false;
        }
        match &self.meaning {
            Meaning::Vector { is_config, queues } => {
                for queue in queues {
                    // Fails only where the counter is full, and then it wakes all the same.
                    drop(queue.write(1));
                }
                // A shared vector is mostly a queue's: that it may be the configuration's is a reason
                // to look, not an announcement.
                if *is_config && queues.is_empty() {
                    notices.config_changes.fetch_add(1, Ordering::Relaxed);
                }
                *is_config
            }
            Meaning::Notice(Notice::ReleaseRequest) => {
                !notices.is_wanted_back.swap(true, Ordering::Relaxed)
            }
            Meaning::Notice(Notice::BusError) => {
                !notices.has_bus_error.swap(true, Ordering::Relaxed)
            }
        }
    }
}

/// The thread that waits. It ends when this is dropped.
pub(super) struct Watch {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(name: &str, sources: Vec<Source>, notices: Arc<Notices>) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e);
        let stop = event::new()?;
        let stopped = stop.try_clone().map_err(failed)?;
        let events = sources.iter().map(|source| &source.event).chain([&stop]);
        let events = event::set(events.map(AsRawFd::as_raw_fd)).map_err(failed)?;
        let thread = thread::Builder::new()
            .name(format!("watch-{name}"))
            .spawn(move || watch(&events, &stopped, &sources, &notices))
            .map_err(failed)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Cannot fail: the counter is not full.
        drop(self.stop.write(1));
        // A hook may have dropped the last handle on the thread itself, which ends by itself.
        let here = thread::current().id();
        if let Some(thread) = self.thread.take_if(|thread| thread.thread().id() != here) {
            // Its panic, if there was one, has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn watch(events: &Epoll, stop: &EventFd, sources: &[Source], notices: &Notices) {
    loop {
        // Which events there are is found out by reading them.
        if let Err(error) = event::wait_for(events, None) {
            tracing::error!(%error, "cannot wait for events of a device; they go unseen");
            return;
        }
        if stop.read().is_ok() {
            return;
        }
        let mut announced = false;
        for source in sources {
            announced |= source.take(notices);
        }
        if announced {
            notices.raise();
        }
    }
}
