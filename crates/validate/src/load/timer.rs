//! Waiting for a moment more exactly than the runtime's timer wheel, which knows whole milliseconds.

#[cfg(target_os = "linux")]
pub(super) use exact::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use wheel::Timer;

#[cfg(target_os = "linux")]
mod exact {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A `timerfd(2)`: the kernel's high-resolution timer, waited on like a socket. At 200 arrivals a
    /// second the timer wheel alone would add half a millisecond to every latency.
    #[derive(Debug)]
    pub(in super::super) struct Timer {
        fd: AsyncFd<OwnedFd>,
    }

    impl Timer {
        pub(in super::super) fn new() -> io::Result<Self> {
            let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(unsafe_code, reason = "the runtime offers no safe way to wait on a descriptor it does not know")]
            // SAFETY: an `OwnedFd` is a valid, open descriptor, the same one until it is dropped, and the
            // `AsyncFd` owns it from here on; nothing else holds the descriptor's number.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            Ok(Self { fd })
        }

        /// Returns at `moment`, or at once when it has passed.
        pub(in super::super) async fn wait_until(&mut self, moment: Instant) -> io::Result<()> {
            loop {
                let left = moment.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                self.arm(left)?;
                let mut expired = self.fd.readable().await?;
                let mut expirations = [0; 8];
                // Taking the count re-arms readiness; that there is none yet only means to wait again.
                let _ = expired.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?));
            }
        }

        fn arm(&self, left: Duration) -> io::Result<()> {
            const NEVER_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec {
                it_interval: NEVER_AGAIN,
                it_value: Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod wheel {
    use std::io;

    use tokio::time::{Instant, sleep_until};

    /// The runtime's timer wheel: up to a millisecond late, and the reported slip says so.
    #[derive(Debug)]
    pub(in super::super) struct Timer;

    impl Timer {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(in super::super) async fn wait_until(&mut self, moment: Instant) -> io::Result<()> {
            sleep_until(moment).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_wait_never_ends_early_and_a_passed_moment_does_not_wait() {
        let mut timer = Timer::new().unwrap();
        for microseconds in [0, 50, 700, 2500, 100] {
            let moment = Instant::now() + Duration::from_micros(microseconds);
            timer.wait_until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
            timer.wait_until(moment).await.unwrap();
        }
    }
}
