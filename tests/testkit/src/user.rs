//! Other users of this machine. The tests run as root, who may become any of them.

use std::thread;

use rustix::process::Uid;

/// Nobody in particular: a user without any right of its own.
pub const NOBODY: u32 = 65_534;

/// Does `work` as this user, on a thread that is theirs: to the kernel they are who connects, reads
/// and writes.
///
/// # Panics
/// When this process is not root, or `work` panics.
pub fn as_user<T: Send>(user: u32, work: impl FnOnce() -> T + Send) -> T {
    let become_and_work = || {
        rustix::thread::set_thread_uid(Uid::from_raw(user)).expect("the tests run as root");
        work()
    };
    thread::scope(|scope| scope.spawn(become_and_work).join()).expect("work that does not panic")
}
