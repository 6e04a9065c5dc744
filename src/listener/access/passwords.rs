//! Checking a password without being a burden or a help to those who guess.
//!
//! bcrypt is slow on purpose, and an engine opens a connection for every layer: a right password is
//! remembered, by a keyed hash. Whatever is not remembered is checked on blocking threads, few at a
//! time for all and one at a time for each client. Of a wrong one its client hears after two
//! seconds, and meanwhile few others of that address are looked at, fewer with that name, whether
//! it stays to hear of it or not.
//!
//! Behind one address there may be a whole site, and somebody in it who guesses. So of those who
//! wait the newest is next: a right password comes after what is being checked, not after all the
//! guesses before it. A name that there is not takes the same way, to the end, as one that there
//! is.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
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
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Htpasswd;
use super::turns::Turns;

/// How long a right password is not checked again. The file that it was right by is in force as
/// long as this is kept: where it is read again, all are checked anew.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Right passwords remembered: a site's engines several times over.
const MAX_REMEMBERED: u64 = 4096;
/// How long a wrong password takes from the beginning of its turn: longer than the slowest check,
/// so that it does not tell how slow this one was.
const DELAY: Duration = Duration::from_secs(2);
/// How long after a wrong password with the same name from the same address the next is looked at,
/// and with whatever name. Both are short enough for somebody who makes one mistake after the other
/// to leave room for the others of a site, and long enough for nobody to get far.
const NAME_PAUSE: Duration = Duration::from_millis(500);
const ADDRESS_PAUSE: Duration = Duration::from_millis(250);
/// Checks at once: each takes a processor whole, and pulls need those too.
const MAX_CHECKS: usize = 2;
/// Requests with one name from one client that may wait for their check: an engine opens about so
/// many connections at the start of a pull, and all but the first find the password remembered.
const MAX_WAITING: usize = 32;
/// As [`MAX_WAITING`], with whatever names: those whose turn it is.
const MAX_WAITING_NAMES: usize = 64;
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
    #[error("too many passwords are being tried from this address")]
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

    /// The name.
    pub(super) fn name(&self) -> &[u8] {
        self.parts().0
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
    remembered: Cache<Mark, ()>,
    checks: Semaphore,
    /// Who tries a name from an address, until it is known whether it was right, and for how long a
    /// wrong one has to wait.
    tries: Queues<(IpAddr, Mark)>,
    /// Who is checked of a client, for as long as the check takes.
    clients: Queues<IpAddr>,
    tasks: TaskTracker,
}

/// What stands for a secret.
type Mark = [u8; 32];

/// Turns of several, kept while somebody takes or awaits one.
struct Queues<K>(Mutex<HashMap<K, Weak<Turns>>>);

impl<K: Eq + Hash> Queues<K> {
    fn of(&self, key: K, most: usize) -> Arc<Turns> {
        let mut queues = self.0.lock();
        if let Some(turns) = queues.get(&key).and_then(Weak::upgrade) {
            return turns;
        }
        if queues.len() >= queues.capacity() {
            // Before it grows: no more than clients with connections remain.
            queues.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Turns::new(most);
        queues.insert(key, Arc::downgrade(&turns));
        turns
    }
}

impl<K> Default for Queues<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
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
            tries: Queues::default(),
            clients: Queues::default(),
            tasks,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Whether a credential is a user's.
    pub(super) async fn check(&self, client: IpAddr, credential: Credential) -> Result<(), Denial> {
        let mark = self.mark(&credential.decoded);
        if self.parts.remembered.contains_key(&mark) {
            return Ok(());
        }
        let this = self.clone();
        // A task of its own: one that hangs up has still had its turn.
        let checking =
            self.parts.tasks.spawn(async move { this.tried(client, credential, mark).await });
        checking.await.unwrap_or(Err(Denial::Wrong))
    }

    async fn tried(
        &self,
        client: IpAddr,
        credential: Credential,
        mark: Mark,
    ) -> Result<(), Denial> {
        let name = self.mark(credential.name());
        let turns = self.parts.tries.of((client, name), MAX_WAITING);
        let turn = turns.take().await.ok_or(Denial::Busy)?;
        if self.parts.remembered.contains_key(&mark) {
            return Ok(());
        }
        let began = Instant::now();
        let checked = self.checked(client, credential).await;
        if checked.is_ok() {
            self.parts.remembered.insert(mark, ());
            return checked;
        }
        tokio::time::sleep_until(began + NAME_PAUSE).await;
        drop(turn);
        // Whoever has been pushed out has learnt nothing sooner by it.
        tokio::time::sleep_until(began + DELAY).await;
        checked
    }

    async fn checked(&self, client: IpAddr, credential: Credential) -> Result<(), Denial> {
        let turns = self.parts.clients.of(client, MAX_WAITING_NAMES);
        let _turn = turns.take().await.ok_or(Denial::Busy)?;
        let began = Instant::now();
        let place = self.parts.checks.acquire().await.map_err(|_| Denial::Wrong)?;
        let parts = self.parts.clone();
        let checking = move || credential.is_right_for(&parts.users);
        let is_right = tokio::task::spawn_blocking(checking).await.unwrap_or(false);
        drop(place);
        if is_right {
            return Ok(());
        }
        tokio::time::sleep_until(began + ADDRESS_PAUSE).await;
        Err(Denial::Wrong)
    }

    fn mark(&self, secret: &[u8]) -> Mark {
        let mut mark = [0; 32];
        let tag = hmac::sign(&self.parts.key, secret);
        mark.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mark
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
    async fn guesses_at_one_name_take_turns_and_do_not_pile_up() {
        let passwords = passwords();
        let began = Instant::now();
        // One has its turn, so many wait, and the rest are told to come again.
        let guesses = (0..=MAX_WAITING + 3).map(|number| {
            let passwords = passwords.clone();
            async move { check(&passwords, &format!("alice:{number}")).await }
        });
        let denials = futures_util::future::join_all(guesses).await;
        let busy = denials.iter().filter(|denial| **denial == Err(Denial::Busy)).count();
        assert_eq!(busy, 3);
        assert!(began.elapsed() >= NAME_PAUSE * u32::try_from(MAX_WAITING).unwrap());
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_other_names_do_not_hold_a_right_password_up() {
        let passwords = passwords();
        let mut guesses: Vec<_> = (0..10 * MAX_WAITING_NAMES)
            .map(|number| {
                let passwords = passwords.clone();
                Box::pin(async move { check(&passwords, &format!("user{number}:x")).await })
            })
            .collect();
        for guess in &mut guesses {
            assert!(futures_util::FutureExt::now_or_never(guess.as_mut()).is_none());
        }
        let began = Instant::now();
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
        assert!(began.elapsed() < DELAY, "{:?}", began.elapsed());
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_guesses_at_a_name_without_end_does_not_keep_its_user_out() {
        let passwords = passwords();
        let guessing = passwords.clone();
        let guesses = TaskTracker::new();
        guesses.spawn({
            let guesses = guesses.clone();
            async move {
                for number in 0..200 {
                    let passwords = guessing.clone();
                    guesses.spawn(async move {
                        check(&passwords, &format!("alice:{number}")).await.unwrap_err();
                    });
                    // All at first, and then half a one a second.
                    let pause = if number < 40 { Duration::ZERO } else { DELAY };
                    tokio::time::sleep(pause).await;
                }
            }
        });
        tokio::time::sleep(DELAY * 20).await;
        let began = Instant::now();
        assert_eq!(check(&passwords, "alice:secret").await, Ok(()));
        assert!(began.elapsed() <= DELAY, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_there_is_not_takes_as_long_as_one_that_there_is() {
        let passwords = passwords();
        let mut times = Vec::new();
        for name in ["alice", "bob"] {
            // With nobody else, and with others before and behind.
            let alone = Instant::now();
            check(&passwords, &format!("{name}:x")).await.unwrap_err();
            let alone = alone.elapsed();
            let many = (0..5).map(|number| {
                let passwords = passwords.clone();
                async move {
                    let began = Instant::now();
                    check(&passwords, &format!("{name}:{number}")).await.unwrap_err();
                    began.elapsed().as_millis()
                }
            });
            times.push((alone.as_millis(), futures_util::future::join_all(many).await));
        }
        assert_eq!(times[0], times[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_up_does_not_shorten_the_wait() {
        let passwords = passwords();
        let began = Instant::now();
        let guess = check(&passwords, "alice:wrong");
        assert!(tokio::time::timeout(DELAY / 100, guess).await.is_err());
        check(&passwords, "alice:secret").await.unwrap();
        assert!(began.elapsed() >= NAME_PAUSE);
    }
}
