//! How long a thread looks before it sleeps.

use std::time::{Duration, Instant};

use super::WaitPolicy;

/// The least that is spun: a wait that ends within it must not cost a sleep.
const FLOOR: Duration = Duration::from_micros(5);
/// What is spun before anything was learnt.
const FIRST: Duration = Duration::from_micros(50);
/// The most that is spun. Waking up costs about as much, in a virtual machine.
const MOST: Duration = Duration::from_micros(100);
/// One wait in so many spins for `MOST` although that has been in vain: a device that has become
/// fast cannot be told from a slow one by waits that sleep, since waking up takes its time. After a
/// wait without sleep, the next is such a probe, too.
const WAITS_PER_PROBE: u32 = 16;
/// A wait weighs this part of what is learnt.
const WEIGHT: u32 = 8;
/// No wait counts as longer, so that a long pause is forgotten after a few short waits.
const LONGEST_LEARNT: Duration = Duration::from_micros(400);

/// How long a thread that finds nothing looks before it sleeps, learnt from how long its waits
/// lasted until something came.
///
/// About twice the usual time is spun, since a wait that lasts twice as long as usual may as well
/// last for ever. Where the usual time is more than is worth spinning, hardly anything is spun.
///
/// The caller passes the clock, and need not read it each time it looks: once in 16 to 64 looks will
/// do. A wait begins with the first look that finds nothing and ends with [`found`](Self::found),
/// however often the thread sleeps meanwhile.
#[derive(Debug)]
pub(crate) struct SpinBudget {
    policy: WaitPolicy,
    /// The usual time until something comes, if anything was learnt.
    usual: Option<Duration>,
    wait: Option<Wait>,
    /// Waits since one that spun as long as is allowed.
    since_probe: u32,
}

/// A wait that has not ended.
#[derive(Clone, Copy, Debug)]
struct Wait {
    begin: Instant,
    /// How long to spin before the first sleep.
    budget: Duration,
    has_slept: bool,
}

impl SpinBudget {
    pub(crate) fn new(policy: WaitPolicy) -> Self {
        Self {
            policy,
            usual: None,
            wait: None,
            since_probe: 0,
        }
    }

    /// Something was looked for and not found. Begins a wait, unless one has begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.wait.is_some() {
            return;
        }
        self.wait = Some(Wait {
            begin: now,
            budget: self.next_budget(),
            has_slept: false,
        });
    }

    /// Whether the thread has looked for long enough and may sleep. After a sleep that something
    /// else ended, it may sleep again at once.
    pub(crate) fn is_spent(&self, now: Instant) -> bool {
        match (self.policy, self.wait) {
            (WaitPolicy::Poll, _) => false,
            (WaitPolicy::Interrupt, _) => true,
            (WaitPolicy::Adaptive, None) => false,
            (WaitPolicy::Adaptive, Some(wait)) => {
                wait.has_slept || now.saturating_duration_since(wait.begin) >= wait.budget
            }
        }
    }

    /// The thread sleeps now; what it waits for is no longer looked for.
    pub(crate) fn slept(&mut self) {
        if let Some(wait) = &mut self.wait {
            wait.has_slept = true;
        }
    }

    /// Something was found: ends the wait, if one has begun, and learns from it.
    pub(crate) fn found(&mut self, now: Instant) {
        let Some(wait) = self.wait.take() else {
            return;
        };
        if !wait.has_slept {
            // If the device has become fast, there are several waits to learn it from at once.
            self.since_probe = WAITS_PER_PROBE;
        }
        let took = now.saturating_duration_since(wait.begin);
        let took = took.min(LONGEST_LEARNT);
        self.usual = Some(match self.usual {
            None => took,
            Some(usual) => (usual * (WEIGHT - 1) + took) / WEIGHT,
        });
    }

    /// As [`found`](Self::found); reads the clock only if a wait has begun.
    pub(crate) fn found_if_waiting(&mut self) {
        if self.wait.is_some() {
            self.found(Instant::now());
        }
    }

    /// Ends the wait, if one has begun, and learns nothing from it. For a wait for what no device
    /// has to deliver: with nothing in flight, how long it takes is up to the callers.
    pub(crate) fn forget(&mut self) {
        self.wait = None;
    }

    fn next_budget(&mut self) -> Duration {
        let Some(usual) = self.usual else {
            return FIRST;
        };
        if usual <= MOST {
            self.since_probe = 0;
            return (usual * 2).clamp(FLOOR, MOST);
        }
        self.since_probe += 1;
        if self.since_probe < WAITS_PER_PROBE {
            return FLOOR;
        }
        self.since_probe = 0;
        MOST
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::wait::{SpinBudget, WaitPolicy};

    /// A thread, its clock and its budget.
    struct Spinner {
        now: Instant,
        budget: SpinBudget,
        /// What waking up takes.
        waking: Duration,
    }

    impl Spinner {
        fn new(policy: WaitPolicy) -> Self {
            Self {
                now: Instant::now(),
                budget: SpinBudget::new(policy),
                waking: Duration::from_micros(60),
            }
        }

        /// Waits for something that comes after `micros`; returns how long it has spun for it, in
        /// microseconds.
        fn wait(&mut self, micros: u64) -> u64 {
            self.budget.begin(self.now);
            let mut spun = 0;
            while spun < micros && !self.budget.is_spent(self.now) {
                self.now += Duration::from_micros(1);
                spun += 1;
                // Only the first look begins a wait.
                self.budget.begin(self.now);
            }
            if spun < micros {
                self.budget.slept();
                self.now += Duration::from_micros(micros - spun) + self.waking;
            }
            self.budget.found(self.now);
            spun
        }

        fn waits(&mut self, micros: u64, count: usize) -> Vec<u64> {
            (0..count).map(|_| self.wait(micros)).collect()
        }
    }

    #[test]
    fn without_experience_fifty_microseconds_are_spun() {
        assert_eq!(Spinner::new(WaitPolicy::Adaptive).wait(1_000), 50);
    }

    #[test]
    fn twice_the_usual_time_is_spun() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        assert_eq!(spinner.waits(20, 50), [20; 50]);
        assert_eq!(spinner.wait(1_000), 40);
    }

    #[test]
    fn no_less_than_the_floor_and_no_more_than_the_most_is_spun() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(1, 50);
        assert_eq!(spinner.wait(1_000), 5);
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(90, 50);
        assert_eq!(spinner.wait(1_000), 100);
    }

    #[test]
    fn for_a_slow_device_hardly_anything_is_spun_but_for_probes() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(1_000, 20);
        let spun = spinner.waits(1_000, 160);
        let probes = spun.iter().filter(|&&micros| micros == 100).count();
        assert_eq!(probes, 10);
        assert!(spun.iter().all(|&micros| micros == 100 || micros == 5));
    }

    #[test]
    fn a_device_that_becomes_fast_is_found_out() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(1_000, 100);
        // Waits that sleep seem to take as long as before.
        spinner.waking = Duration::from_micros(500);
        spinner.waits(20, 32);
        assert_eq!(spinner.waits(20, 100), [20; 100]);
    }

    #[test]
    fn a_device_that_becomes_slow_is_found_out() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(20, 100);
        spinner.waits(1_000, 10);
        assert_eq!(spinner.waits(1_000, 5), [5; 5]);
    }

    #[test]
    fn one_long_pause_does_not_end_spinning() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(20, 50);
        spinner.wait(1_000_000);
        assert_eq!(spinner.waits(20, 20), [20; 20]);
    }

    #[test]
    fn a_wait_that_is_forgotten_teaches_nothing() {
        let mut spinner = Spinner::new(WaitPolicy::Adaptive);
        spinner.waits(20, 50);
        for _ in 0..50 {
            spinner.budget.begin(spinner.now);
            spinner.now += Duration::from_secs(1);
            assert!(spinner.budget.is_spent(spinner.now));
            spinner.budget.slept();
            spinner.budget.forget();
        }
        assert_eq!(spinner.wait(1_000), 40);
    }

    #[test]
    fn after_a_sleep_in_vain_the_thread_sleeps_again_at_once() {
        let mut budget = SpinBudget::new(WaitPolicy::Adaptive);
        let begin = Instant::now();
        budget.begin(begin);
        assert!(!budget.is_spent(begin));
        budget.slept();
        budget.begin(begin);
        assert!(budget.is_spent(begin));
        budget.found(begin);
        budget.begin(begin);
        assert!(!budget.is_spent(begin));
    }

    #[test]
    fn polling_never_ends_and_interrupts_begin_at_once() {
        let mut poll = Spinner::new(WaitPolicy::Poll);
        assert_eq!(poll.wait(100_000), 100_000);
        let mut interrupt = Spinner::new(WaitPolicy::Interrupt);
        assert_eq!(interrupt.waits(20, 20), [0; 20]);
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut budget = SpinBudget::new(WaitPolicy::Adaptive);
        let now = Instant::now();
        budget.begin(now + Duration::from_secs(1));
        assert!(!budget.is_spent(now));
        budget.found(now);
        assert_eq!(budget.usual, Some(Duration::ZERO));
    }
}
