//! Checking a password without being a burden or a help to those who guess.
//!
//! bcrypt is slow on purpose, and an engine opens a connection for every layer: a right password
//! is remembered for a while, by a keyed hash. Whatever is not remembered is checked one at a time
//! for each client and few at a time for all, on blocking threads; a wrong one keeps its client
//! waiting for two seconds, whether it stays to hear of it or not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Htpasswd;

/// How long a right password is not checked again. Whoever is taken out of the file keeps this
/// long at most, counted from the last check.
const REMEMBERED: Duration = Duration::from_mins(5);
/// Right passwords remembered: a site's engines several times over.
const MAX_REMEMBERED: u64 = 4096;
/// How long a wrong password takes from the beginning of its turn: longer than the slowest check,
/// so that it does not tell how slow this one was.
const DELAY: Duration = Duration::from_secs(2);
/// Checks at once: each takes a processor whole, and pulls need those too.
const MAX_CHECKS: usize = 2;
/// Requests of one client that may wait for their check: an engine opens about so many connections
/// at the start of a pull, and all but the first find the password remembered.
const MAX_WAITING: usize = 32;
/// The longest credential looked at, encoded.
const MAX_CREDENTIAL: usize = 1024;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    /// No credential that can be read.
    #[error("this proxy asks for a user and password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")]
    Missing,
    /// One that is not right.
    #[error("the user or the password for this proxy is wrong")]
    Wrong,
    /// Too many that wait for their check.
    #[error("too many passwords from this address are being checked")]
    Busy,
}

/// A user's name and password. Secret.
pub(in crate::listener) struct Credential {
    decoded: Vec<u8>,
    colon: usize,
}

impl Credential {
    /// Reads `Basic` (RFC 7617 §2).
    pub(in crate::listener) fn parse(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_CREDENTIAL {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(Self { decoded, colon })
    }

    /// The name and the password.
    pub(in crate::listener) fn parts(&self) -> (&[u8], &[u8]) {
        let (name, password) = self.decoded.split_at_checked(self.colon).unwrap_or_default();
        (name, password.get(1..).unwrap_or_default())
    }

    fn is_right_for(&self, users: &Htpasswd) -> bool {
        let (name, password) = self.parts();
        users.is_right(std::str::from_utf8(name).unwrap_or_default(), password)
    }
}

/// The users, and who has been one lately. Cheap to clone.
#[derive(Clone)]
pub(super) struct Passwords {
    parts: Arc<PasswordsInner>,
}

struct PasswordsInner {
    users: Htpasswd,
    key: hmac::Key,
    remembered: Cache<[u8; 32], ()>,
    checks: Semaphore,
    queues: Mutex<HashMap<IpAddr, Weak<ClientQueue>>>,
    tasks: TaskTracker,
}

/// One client's requests that wait for their check.
#[derive(Default)]
struct ClientQueue {
    turn: Turn<()>,
    waiting: AtomicUsize,
}

impl Passwords {
    pub(super) fn new(users: Htpasswd, tasks: TaskTracker) -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        let parts = PasswordsInner {
            users,
            key,
            remembered: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_live(REMEMBERED)
                .build(),
            checks: Semaphore::new(MAX_CHECKS),
            queues: Mutex::default(),
            tasks,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Whether a credential is a user's.
    pub(super) async fn check(&self, client: IpAddr, credential: Credential) -> Result<(), Denial> {
        let mark = self.mark(&credential);
        if self.parts.remembered.contains_key(&mark) {
            return Ok(());
        }
        let queue = self.queue(client);
        if queue.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            queue.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Denial::Busy);
        }
        let this = self.clone();
        // A task of its own: one that hangs up has still had its turn.
        let checking = self.parts.tasks.spawn(async move {
            let right = {
                let _turn = queue.turn.lock().await;
                this.checked(credential, mark).await
            };
            queue.waiting.fetch_sub(1, Ordering::Relaxed);
            right
        });
        if checking.await.unwrap_or(false) { Ok(()) } else { Err(Denial::Wrong) }
    }

    async fn checked(&self, credential: Credential, mark: [u8; 32]) -> bool {
        if self.parts.remembered.contains_key(&mark) {
            return true;
        }
        let began = Instant::now();
        let Ok(place) = self.parts.checks.acquire().await else { return false };
        let parts = self.parts.clone();
        let checking = move || credential.is_right_for(&parts.users);
        let right = tokio::task::spawn_blocking(checking).await.unwrap_or(false);
        drop(place);
        if right {
            self.parts.remembered.insert(mark, ());
        } else {
            tokio::time::sleep_until(began + DELAY).await;
        }
        right
    }

    fn mark(&self, credential: &Credential) -> [u8; 32] {
        let mut mark = [0; 32];
        let tag = hmac::sign(&self.parts.key, &credential.decoded);
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mark
    }

    fn queue(&self, client: IpAddr) -> Arc<ClientQueue> {
        let mut queues = self.parts.queues.lock();
        if let Some(queue) = queues.get(&client).and_then(Weak::upgrade) {
            return queue;
        }
        // No more than clients with connections remain.
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(ClientQueue::default());
        queues.insert(client, Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn passwords() -> Passwords {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = Htpasswd::parse(&format!("alice:{hash}")).unwrap();
        Passwords::new(users, TaskTracker::new()).unwrap()
    }

    fn credential(text: &str) -> Credential {
        let value = format!("Basic {}", STANDARD.encode(text));
        Credential::parse(&HeaderValue::from_str(&value).unwrap()).unwrap()
    }

    async fn check(passwords: &Passwords, text: &str) -> Result<(), Denial> {
        passwords.check(Ipv4Addr::LOCALHOST.into(), credential(text)).await
    }

    #[test]
    fn only_basic_is_a_credential() {
        let parse = |text: &str| Credential::parse(&HeaderValue::from_str(text).unwrap());
        let colons = parse("bAsIc YTpiOmM=").unwrap();
        assert_eq!((colons.colon, colons.decoded.as_slice()), (1, b"a:b:c".as_slice()));
        let long = format!("Basic {}", "YTpi".repeat(1000));
        for text in ["", "Basic", "Basic ", "Basic YQ==", "Bearer YTpi", "Basic !", &long] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_takes_its_time_and_a_right_one_does_not() {
        let passwords = passwords();
        let began = Instant::now();
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
        assert!(began.elapsed() < DELAY);
        for wrong in ["alice:Secret", "alice:", "bob:secret", "\u{e9}:secret"] {
            let began = Instant::now();
            assert_eq!(check(&passwords, wrong).await, Err(Denial::Wrong), "{wrong}");
            assert!(began.elapsed() >= DELAY, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_password_is_remembered_and_no_other() {
        let passwords = passwords();
        check(&passwords, "alice:secret").await.unwrap();
        // Nothing can be checked any more, and what is remembered need not be.
        passwords.parts.checks.close();
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
        assert_eq!(check(&passwords, "alice:other").await, Err(Denial::Wrong));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_of_one_client_take_turns_and_do_not_pile_up() {
        let passwords = passwords();
        let began = Instant::now();
        let guesses = (0..MAX_WAITING + 3).map(|number| {
            let passwords = passwords.clone();
            async move { check(&passwords, &format!("alice:{number}")).await }
        });
        let denials = futures_util::future::join_all(guesses).await;
        let busy = denials.iter().filter(|denial| **denial == Err(Denial::Busy)).count();
        assert_eq!(busy, 3);
        assert!(began.elapsed() >= DELAY * u32::try_from(MAX_WAITING).unwrap());
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
        assert_eq!(passwords.parts.queues.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_up_does_not_shorten_the_wait() {
        let passwords = passwords();
        let began = Instant::now();
        let guess = check(&passwords, "alice:wrong");
        assert!(tokio::time::timeout(DELAY / 100, guess).await.is_err());
        check(&passwords, "alice:secret").await.unwrap();
        assert!(began.elapsed() >= DELAY);
    }
}
