//! Calls into plugins that must answer at once, with a deadline on each.

use std::{
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use tokio::runtime::Handle;

use super::drain::NO_TASK;
use crate::plugin::with_task;

type Job = Box<dyn FnOnce() + Send>;

/// Makes calls on a thread of its own. A call that does not return in time keeps that thread; the next one gets a new
/// thread. (A thread that is inside a plugin cannot be stopped, only left behind.)
pub struct PatientCaller {
    tokio: Handle,
    jobs: Option<Sender<Job>>,
}

/// The call did not return in time.
#[derive(Debug)]
pub struct OutOfTime;

impl PatientCaller {
    /// A caller whose threads can use `tokio`.
    pub fn new(tokio: Handle) -> Self {
        Self { tokio, jobs: None }
    }

    /// Runs `call` and waits for it up to `patience`.
    ///
    /// # Errors
    /// It took longer. What it returns in the end is dropped where it ran.
    pub fn call<T: Send + 'static>(
        &mut self,
        patience: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OutOfTime> {
        let (sender, answer) = channel();
        let job: Job = Box::new(move || {
            let _ = sender.send(call());
        });
        if let Err(unsent) = self.thread().and_then(|jobs| jobs.send(job).map_err(|_| OutOfTime)) {
            self.jobs = None;
            return Err(unsent);
        }
        match answer.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.jobs = None;
                Err(OutOfTime)
            }
        }
    }

    fn thread(&mut self) -> Result<&Sender<Job>, OutOfTime> {
        if self.jobs.is_none() {
            let (sender, jobs) = channel::<Job>();
            let tokio = self.tokio.clone();
            std::thread::Builder::new()
                .name("plugin-calls".into())
                .spawn(move || {
                    let _entered = tokio.enter();
                    while let Ok(job) = jobs.recv() {
                        with_task(NO_TASK, job);
                    }
                })
                .map_err(|_| OutOfTime)?;
            self.jobs = Some(sender);
        }
        self.jobs.as_ref().ok_or(OutOfTime)
    }
}
