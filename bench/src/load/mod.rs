//! The load generator: so many connections, each asking for one thing after the other.
//!
//! `connection` is one of them, `job` says what is asked for, `tally` what came of it. Status and
//! length of every answer are checked; what is wrong is an error, and an error ends its connection.

mod connection;
mod job;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

pub(crate) use connection::{Connection, Target, Way};
pub(crate) use job::{Connections, Job, Limit, Pattern, Request};
pub(crate) use tally::Tally;

/// How many connections are opened at a time: a server's backlog is no measure here.
const OPENED_AT_ONCE: usize = 32;

/// What the workers of a job share.
struct Shared {
    target: Arc<Target>,
    job: Job,
    next: AtomicU64,
    deadline: Option<Instant>,
}

impl Shared {
    /// The next request's number, as long as there is one to be made.
    fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let more = match self.job.limit {
            // One is made in any case.
            Limit::For(_) => number == 0 || self.deadline.is_none_or(|end| Instant::now() < end),
            Limit::Count(count) => number < count,
        };
        more.then_some(number)
    }
}

/// Does a job, and calls `begin` when its connections are open and nothing has been asked yet.
pub(crate) async fn run(target: &Arc<Target>, job: Job, begin: impl FnOnce()) -> Tally {
    let mut tally = Tally::default();
    let held = match job.connections {
        Connections::Held(count) => open(target, count, &mut tally).await,
        Connections::Fresh(count) => (0..count).map(|_| None).collect(),
    };
    begin();
    let started = Instant::now();
    let deadline = match job.limit {
        Limit::For(time) => Some(started + time),
        Limit::Count(_) => None,
    };
    let shared = Arc::new(Shared { target: target.clone(), job, next: 0.into(), deadline });
    let mut workers = JoinSet::new();
    for connection in held {
        workers.spawn(work(shared.clone(), connection));
    }
    while let Some(done) = workers.join_next().await {
        match done {
            Ok(part) => tally.add(part),
            Err(error) => tally.errors.push(error.to_string()),
        }
    }
    tally.elapsed = started.elapsed();
    tally
}

/// Opens connections and keeps them.
pub(crate) async fn open(
    target: &Arc<Target>,
    count: usize,
    tally: &mut Tally,
) -> Vec<Option<Connection>> {
    let mut open = Vec::new();
    while open.len() < count && tally.errors.is_empty() {
        let mut opening = JoinSet::new();
        for _ in 0..OPENED_AT_ONCE.min(count - open.len()) {
            let target = target.clone();
            opening.spawn(async move { Connection::open(&target).await });
        }
        while let Some(opened) = opening.join_next().await {
            match opened.map_err(anyhow::Error::from).flatten() {
                Ok(connection) => open.push(Some(connection)),
                Err(error) => tally.errors.push(format!("{error:#}")),
            }
        }
    }
    open
}

async fn work(shared: Arc<Shared>, mut connection: Option<Connection>) -> Tally {
    let mut tally = Tally::default();
    let fresh = matches!(shared.job.connections, Connections::Fresh(_));
    while let Some(number) = shared.next() {
        let request = shared.job.pattern.request(number);
        let since = Instant::now();
        let answered = ask(&shared.target, &mut connection, &request).await;
        if fresh {
            connection = None;
        }
        match answered {
            Ok(first_byte) => tally.answered(request.bytes, first_byte - since, since.elapsed()),
            Err(error) => {
                tally.errors.push(format!("{}: {error:#}", request.path));
                break;
            }
        }
    }
    tally
}

/// Asks on the connection, a new one if there is none; when the body began.
async fn ask(
    target: &Target,
    place: &mut Option<Connection>,
    request: &Request,
) -> anyhow::Result<Instant> {
    let mut connection = match place.take() {
        Some(connection) => connection,
        None => Connection::open(target).await?,
    };
    let answer = connection.ask(request, |_| ()).await?;
    if !answer.closes {
        *place = Some(connection);
    }
    Ok(answer.first_byte)
}

/// Does something on a runtime of its own: on one thread if that is to stay on this CPU, else on
/// as many as there are CPUs.
pub(crate) fn on_cpu<T: Send>(
    cpu: Option<usize>,
    work: impl Future<Output = anyhow::Result<T>> + Send,
) -> anyhow::Result<T> {
    let work = || {
        let mut builder = if let Some(cpu) = cpu {
            crate::procs::pin_thread(cpu)?;
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder.enable_all().build()?;
        let done = runtime.block_on(work);
        // Connections of a job that failed must not hold up what comes next.
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    };
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.unwrap_or_else(|_| Err(anyhow::anyhow!("the load generator has panicked")))
}
