//! The pieces in which a client receives what is kept: one at a time, as large as the client is
//! fast, on its account.
//!
//! A client that asks and does not read holds what it was given last. So the first pieces are
//! small, the next is read when the last is gone, and who has too much under way gets pieces so
//! small that they are no more than a connection costs anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::memory::{Account, Room};

/// A piece of this length needs no room.
const SMALL: usize = 8 * 1024;
/// What a client gets at a time until it has shown that it takes it.
const FIRST: usize = 64 * 1024;
/// Then: large enough that system calls and TLS records cost little.
const LARGEST: usize = 256 * 1024;
/// So many pieces, each gone in so short a time, show a client that reads.
const SHOWN_BY: u32 = 8;
const SHORT: Duration = Duration::from_millis(100);

/// One client's pieces of one body.
pub(super) struct Pieces {
    account: Account,
    size: usize,
    /// How many pieces in a row were gone in a short time.
    quick: u32,
    /// The last piece, and when it was handed out.
    last: Option<(Arc<Slot>, Instant)>,
}

/// Whether a piece is still there.
#[derive(Debug, Default)]
struct Slot {
    is_gone: AtomicBool,
    awaited: AtomicWaker,
}

impl Pieces {
    pub(super) fn new(account: Account) -> Self {
        Self { account, size: FIRST, quick: 0, last: None }
    }

    /// Ready when the last piece is gone: written to the socket, or dropped with it.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((slot, since)) = &self.last else { return Poll::Ready(()) };
        if !slot.is_gone.load(Ordering::Acquire) {
            slot.awaited.register(cx.waker());
            // It may have gone meanwhile, and told nobody.
            if !slot.is_gone.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        self.quick = if since.elapsed() < SHORT { self.quick.saturating_add(1) } else { 0 };
        self.size = if self.quick >= SHOWN_BY { LARGEST } else { FIRST };
        self.last = None;
        Poll::Ready(())
    }

    /// What the next piece should be, of `left` bytes that are to come at most.
    pub(super) fn wish(&self, left: Option<u64>) -> Wish {
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
        Wish { account: self.account.clone(), most: self.size.min(left) }
    }

    /// The next piece.
    pub(super) fn hand_out(&mut self, bytes: Bytes, room: Option<Room>, is_last: bool) -> Bytes {
        if is_last && room.is_none() {
            return bytes;
        }
        let slot = Arc::<Slot>::default();
        if !is_last {
            self.last = Some((slot.clone(), Instant::now()));
        }
        Bytes::from_owner(Piece { bytes, slot, _room: room })
    }
}

/// What a client is to get next, if there is room.
pub(super) struct Wish {
    account: Account,
    most: usize,
}

impl Wish {
    /// How much of it there is room for now.
    pub(super) fn granted(self) -> Allowance {
        let Self { account, most } = self;
        if most <= SMALL {
            return Allowance { most, room: None };
        }
        match account.try_take(most) {
            Some(room) => Allowance { most, room: Some(room) },
            None => Allowance { most: SMALL, room: None },
        }
    }
}

/// What may be read.
pub(super) struct Allowance {
    pub(super) most: usize,
    pub(super) room: Option<Room>,
}

struct Piece {
    bytes: Bytes,
    slot: Arc<Slot>,
    _room: Option<Room>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.slot.is_gone.store(true, Ordering::Release);
        self.slot.awaited.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, Shares};
    use futures_util::future::poll_fn;
    use futures_util::poll;

    fn pieces(memory: &Memory) -> Pieces {
        Pieces::new(memory.budget.account(Some([10, 0, 0, 1].into())))
    }

    #[tokio::test(start_paused = true)]
    async fn one_piece_at_a_time_and_larger_for_who_reads() {
        let memory = Memory::new(Shares::new(Some(0)));
        let mut pieces = pieces(&memory);
        let mut sizes = Vec::new();
        for round in 0..12 {
            poll_fn(|cx| pieces.poll_next(cx)).await;
            let Allowance { most, room } = pieces.wish(None).granted();
            sizes.push(most);
            let piece = pieces.hand_out(Bytes::from(vec![0; most]), room, false);
            assert!(poll!(poll_fn(|cx| pieces.poll_next(cx))).is_pending());
            if round == 10 {
                tokio::time::advance(SHORT).await;
            }
            drop(piece);
        }
        assert_eq!(sizes[..8], [FIRST; 8]);
        assert_eq!(sizes[8..], [LARGEST, LARGEST, LARGEST, FIRST]);
    }

    #[test]
    fn who_has_too_much_under_way_gets_small_pieces() {
        let memory = Memory::new(Shares::new(Some(0)));
        let granted = || pieces(&memory).wish(None).granted();
        let all: Vec<_> = std::iter::repeat_with(granted).take(1_000).collect();
        let large = all.iter().filter(|one| one.room.is_some()).count();
        assert!((100..300).contains(&large), "{large}");
        assert!(all[large..].iter().all(|one| one.most == SMALL));
        let other = Pieces::new(memory.budget.account(Some([10, 0, 0, 2].into())));
        assert_eq!(other.wish(None).granted().most, FIRST, "others go on");
    }
}
