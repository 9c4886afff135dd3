//! What a thread does for its devices when its executor has nothing else to do.

use std::{
    cell::{Cell, RefCell},
    hint,
    rc::{Rc, Weak},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use super::Thread;
use crate::{
    WaitPolicy,
    io_queue::{LOOKS_PER_PAUSE, NAP, watched},
    wait::{Reactor, Sleeper, SpinBudget},
};

/// How long a thread sleeps at the most where its executor cannot end the sleep: what else the
/// executor waits for is late by so much.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// How the thread of a device waits.
#[derive(Default)]
pub(super) struct Parking {
    budget: Option<SpinBudget>,
    sleeper: Option<Sleeper>,
    /// The interrupt as tokio watches it.
    reactor: Option<Reactor>,
    is_armed: bool,
}

/// Who can end a sleep of the thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Executor {
    /// It waits for descriptors, among them the device's interrupt.
    WithIo,
    WithoutIo,
}

thread_local! {
    static THREADS: RefCell<Vec<Weak<Thread>>> = const { RefCell::new(Vec::new()) };
    static IN_VAIN: Cell<usize> = const { Cell::new(0) };
}

/// To be called by wakers that had nobody to wake: those of operations that belong to an object, not
/// to a task. Somebody else is woken then, or the executor would sleep while a task waits for a device
/// that nobody drives.
pub(crate) fn woken_in_vain() {
    IN_VAIN.set(IN_VAIN.get().wrapping_add(1));
}

/// How often that has been called on this thread.
pub(super) fn in_vain() -> usize {
    IN_VAIN.get()
}

/// Wakes a task; false if there was none to wake.
fn is_heard(waker: Waker) -> bool {
    let before = in_vain();
    waker.wake();
    in_vain() == before
}

pub(super) fn register(thread: &Rc<Thread>) {
    THREADS.with_borrow_mut(|threads| {
        threads.retain(|known| known.strong_count() > 0);
        threads.push(Rc::downgrade(thread));
    });
}

/// Drives the [local](crate::Local) devices of this thread: shows them what was submitted, and wakes
/// the tasks whose requests have ended. To be called when there is nothing else to do: give it to
/// [`tokio::runtime::Builder::on_thread_park`] of a current-thread or local runtime.
///
/// While requests are in flight and none ends, it spins for a short while and returns, and lets the
/// executor call it again; when that has gone on for longer than
/// [`OpenOptions::wait`](crate::OpenOptions::wait) wants it to, it sleeps until the device
/// interrupts, for a millisecond at the most: whatever else the executor waits for, a timer or
/// another thread, can be late by that much. [`on_thread_park_with_io`] has no such limit.
///
/// ```
/// use zbd_core::{ZoneId, ZonedDevice};
///
/// let runtime = tokio::runtime::Builder::new_current_thread()
///     .on_thread_park(zbd_core::on_thread_park)
///     .build()?;
/// let device = ZonedDevice::open_local("emu:")?;
/// let at = runtime.block_on(async {
///     let record = device.buffer(4096)?;
///     device.append(ZoneId(0), record).await
/// })?;
/// assert_eq!(at.sector.0, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn on_thread_park() {
    park(Executor::WithoutIo);
}

/// As [`on_thread_park`], for runtimes with tokio's I/O driver
/// ([`enable_io`](tokio::runtime::Builder::enable_io)): the thread sleeps in that, which waits for the
/// device's interrupt beside everything else. Each turn costs tokio a system call. While a request has
/// a deadline, the thread sleeps as with [`on_thread_park`].
///
/// # Panics
/// If the runtime has no I/O driver.
pub fn on_thread_park_with_io() {
    park(Executor::WithIo);
}

fn nth(at: usize) -> Option<Weak<Thread>> {
    THREADS.with_borrow(|threads| threads.get(at).cloned())
}

/// Does something for each device of this thread; true if it was true of one of them.
fn each(mut work: impl FnMut(&Thread) -> bool) -> bool {
    let mut any = false;
    // Devices can be opened and dropped meanwhile, by whoever is woken.
    for at in 0.. {
        match nth(at) {
            Some(thread) => any |= thread.upgrade().is_some_and(|thread| work(&thread)),
            None => break,
        }
    }
    any
}

fn park(executor: Executor) {
    let mut expecting = 0;
    let found = each(|thread| {
        let found = thread.turn();
        expecting += usize::from(thread.expected() > 0);
        found
    });
    if found || expecting == 0 {
        return;
    }
    for _ in 0..LOOKS_PER_PAUSE {
        hint::spin_loop();
        if each(Thread::turn) {
            return;
        }
    }
    let now = Instant::now();
    let is_awake = each(|thread| thread.expected() > 0 && !thread.is_patient(now));
    // Where nobody waits, those who would have are gone: there is no hurry.
    if is_awake && keep_awake() {
        return;
    }
    if !sleep(executor, expecting) {
        keep_awake();
    }
}

/// Lets the executor call again at once: tasks that wait are woken for nothing. False if there are
/// none.
fn keep_awake() -> bool {
    each(Thread::keep_awake)
}

/// Sleeps, or lets the executor sleep, which is true: until one of the devices interrupts.
fn sleep(executor: Executor, expecting: usize) -> bool {
    let mut time_left = None;
    each(|thread| {
        let left = thread.core.borrow().queue.time_left();
        time_left = [time_left, left].into_iter().flatten().min();
        false
    });
    if executor == Executor::WithIo && time_left.is_none() {
        return !each(|thread| thread.expected() > 0 && !thread.watch());
    }
    let most = time_left.map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP));
    let is_asleep = expecting == 1 && each(|thread| thread.expected() > 0 && thread.sleep(most));
    if !is_asleep {
        thread::sleep(NAP);
    }
    each(Thread::turn)
}

impl Thread {
    /// Wakes a task that waits, or those that wait for what comes of others' requests. False if there
    /// are none.
    #[cold]
    pub(super) fn keep_awake(&self) -> bool {
        let mut skip = 0;
        loop {
            let found = self.core.borrow().slots.awaited(skip);
            let Some((at, waker)) = found else { break };
            if is_heard(waker) {
                if at > 0 {
                    self.core.borrow_mut().slots.set_likely(at);
                }
                return true;
            }
            skip = at + 1;
        }
        let kept = self.kept.take();
        kept.into_iter()
            .map(is_heard)
            .filter(|heard| *heard)
            .count()
            > 0
    }

    /// Drives the device, and learns how long it was waited for.
    fn turn(&self) -> bool {
        if self.parking.borrow().is_armed {
            self.core.borrow_mut().queue.disarm();
            self.parking.borrow_mut().is_armed = false;
        }
        let found = self.drive();
        if found && let Some(budget) = &mut self.parking.borrow_mut().budget {
            budget.found_if_waiting();
        }
        found
    }

    /// Whether the device has been looked at for long enough.
    fn is_patient(&self, now: Instant) -> bool {
        let policy = self.info.borrow().wait;
        if policy == WaitPolicy::Poll {
            return false;
        }
        let mut parking = self.parking.borrow_mut();
        let budget = parking
            .budget
            .get_or_insert_with(|| SpinBudget::new(policy));
        budget.begin(now);
        let is_spent = budget.is_spent(now);
        if is_spent {
            budget.slept();
        }
        is_spent
    }

    /// Lets tokio watch the interrupt, and asks the device for it; false if that is in vain, because
    /// there is something to be taken already.
    fn watch(&self) -> bool {
        let mut parking = self.parking.borrow_mut();
        let mut core = self.core.borrow_mut();
        let Some(interrupt) = core.queue.interrupt() else {
            return false;
        };
        if parking.reactor.is_none() {
            parking.reactor = Reactor::new(interrupt).ok();
        }
        if !parking.reactor.as_ref().is_some_and(Reactor::watch) {
            // The runtime in which it was watched has ended; the next is tried the next time.
            parking.reactor = None;
            return false;
        }
        parking.is_armed = true;
        core.queue.arm()
    }

    /// Sleeps until the device interrupts, for `most`; false if it cannot.
    fn sleep(&self, most: Duration) -> bool {
        let mut parking = self.parking.borrow_mut();
        let mut core = self.core.borrow_mut();
        let Some(interrupt) = core.queue.interrupt() else {
            return false;
        };
        if parking.sleeper.is_none() {
            let Ok(sleeper) = watched(interrupt).and_then(|watched| Sleeper::new(vec![watched]))
            else {
                return false;
            };
            parking.sleeper = Some(sleeper);
        }
        let is_idle = core.queue.arm();
        let slept = match &mut parking.sleeper {
            Some(sleeper) if is_idle => sleeper.sleep(Some(most)),
            _ => Ok(()),
        };
        core.queue.disarm();
        core.queue.look_closely(false);
        slept.is_ok()
    }
}
