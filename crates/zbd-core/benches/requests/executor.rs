//! The least that runs futures: tasks that are polled when they have been woken.
//!
//! The layer `executor` runs futures that do nothing but wait to be woken once: what running futures
//! costs whichever layer makes them.

use std::{
    cell::RefCell,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use crate::Driver;

thread_local! {
    /// The tasks that have been woken, in that order.
    static WOKEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// What a waker stands for: the number of a task of this thread.
struct Number(usize);

impl Wake for Number {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WOKEN.with_borrow_mut(|woken| woken.push(self.0));
    }
}

struct Task<F> {
    waker: Waker,
    future: Pin<Box<Option<F>>>,
}

/// Tasks whose memory is used again.
pub(crate) struct Executor<F> {
    tasks: Vec<Task<F>>,
    /// Kept for its memory.
    turn: Vec<usize>,
}

impl<F: Future> Executor<F> {
    pub(crate) fn new(tasks: usize) -> Self {
        WOKEN.with_borrow_mut(|woken| woken.reserve(tasks));
        let task = |number| Task {
            waker: Arc::new(Number(number)).into(),
            future: Box::pin(None),
        };
        Self {
            tasks: (0..tasks).map(task).collect(),
            turn: Vec::with_capacity(tasks),
        }
    }

    /// Makes `future` task `number`, and polls it for the first time.
    #[inline]
    pub(crate) fn spawn(&mut self, number: usize, future: F) -> Poll<F::Output> {
        let task = &mut self.tasks[number];
        task.future.set(Some(future));
        task.poll()
    }

    /// Polls the tasks that have been woken; what they come to goes to `end`.
    #[inline]
    pub(crate) fn run(&mut self, mut end: impl FnMut(F::Output)) {
        WOKEN.with_borrow_mut(|woken| mem::swap(woken, &mut self.turn));
        for number in self.turn.drain(..) {
            if let Poll::Ready(output) = self.tasks[number].poll() {
                end(output);
            }
        }
    }
}

impl<F: Future> Task<F> {
    #[inline]
    fn poll(&mut self) -> Poll<F::Output> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(&mut Context::from_waker(&self.waker)),
            None => Poll::Pending,
        }
    }
}

/// A future that ends when it has been woken.
#[derive(Default)]
pub(crate) struct Once(bool);

thread_local! {
    static SLEEPING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

impl Future for Once {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        SLEEPING.with_borrow_mut(|sleeping| sleeping.push(cx.waker().clone()));
        Poll::Pending
    }
}

pub(crate) struct Layer(Executor<Once>);

pub(crate) fn open() -> Layer {
    SLEEPING.with_borrow_mut(|sleeping| sleeping.reserve(256));
    Layer(Executor::new(256))
}

impl Driver for Layer {
    fn submit(&mut self, _first: u64, batch: u64) {
        for number in 0..batch as usize {
            let polled = self.0.spawn(number, Once::default());
            if polled.is_ready() {
                return;
            }
        }
    }

    fn submit_one_by_one(&mut self, first: u64, batch: u64) {
        self.submit(first, batch);
    }

    fn step(&mut self) {}

    fn reap(&mut self) -> u64 {
        SLEEPING.with_borrow_mut(|sleeping| sleeping.drain(..).for_each(Waker::wake));
        let mut reaped = 0;
        self.0.run(|()| reaped += 1);
        reaped
    }

    fn doorbells(&self) -> u64 {
        0
    }
}
